"""What comes with the package, so that everything can be tried before anything is downloaded: a small codec, a corpus
of synthetic speech as its units, a speech language model trained on it, a text tokenizer, preference pairs, benchmarks
in miniature, and a recording to continue.

`python -m hub_scripts.quickstart` makes them, and the recipe `quickstart` the model. Recipes, scripts and every
`from_pretrained` name them `quickstart:codec`, `quickstart:model`, `quickstart:corpus`, `quickstart:tokenizer`,
`quickstart:preferences`, `quickstart:benchmarks/<task>` and `quickstart:prompt.flac`.
"""

from pathlib import Path

from ..public_names import PREFIX


QUICKSTART = Path(__file__).parent
"""The folder of it all."""

QUICKSTART_CORPUS = QUICKSTART / "corpus"
"""Parquet folder of a tokenised corpus, with its card: what `load_dataset` takes."""


def resolve_path(name: str) -> str:
    r"""
    A path or a Hub id as it is, and `quickstart:<path>` as the path of what comes with the package.

    Args:
        name (`str`):
            What a recipe or a user names.

    Raises:
        FileNotFoundError: the package has nothing by that name.
    """
    if not name.startswith(PREFIX):
        return name
    path = QUICKSTART / name.removeprefix(PREFIX)
    if not path.exists():
        found = sorted(entry.name for entry in QUICKSTART.iterdir() if not entry.name.startswith("_"))
        raise FileNotFoundError(f"'{name}': slam-hf brings no such data with it, but {', '.join(found)}.")
    return str(path)
