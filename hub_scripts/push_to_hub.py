"""Publish a model, a codec, a corpus, a metric or the page of a model with its card, in one commit.

```
python hub_scripts/push_to_hub.py --folder my-codec --repo_id user/my-codec
python hub_scripts/push_to_hub.py --folder outputs/slam --codec user/my-codec --repo_id user/slam
python hub_scripts/push_to_hub.py --corpus corpora/librispeech --repo_id user/librispeech-units
python hub_scripts/push_to_hub.py --metric sblimp --repo_id user/sblimp
python hub_scripts/push_to_hub.py --space user/slam --repo_id user/slam-demo
```

`--dry_run` shows the files and the card, also as a page that plays its samples, and publishes nothing. Others can load
models and codecs without `slam_hf`, with `trust_remote_code=True`: their code is published too. Checkpoints, optimizer
states and logs are not, and links are refused.
"""

import sys
import tempfile
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import RepoCard
from transformers.hf_argparser import HfArg

from slam_hf.checkpoint_files import check_content
from slam_hf.command_line import parse_arguments, run
from slam_hf.corpora.dataset_card import render_dataset_card
from slam_hf.evaluation.results_table import model_summaries
from slam_hf.hub.codec_card import render_codec_card
from slam_hf.hub.codec_reference import pin_codec
from slam_hf.hub.demo_space import demo_space
from slam_hf.hub.markdown import HUB
from slam_hf.hub.metric_space import metric_space
from slam_hf.hub.model_card import render_model_card
from slam_hf.hub.preview import render_page
from slam_hf.hub.remote_code import export_remote_code
from slam_hf.hub.repository_files import publishable_files, read_license, stage, stage_corpus, staging_folder
from slam_hf.hub.samples import stage_samples
from slam_hf.hub.upload import publish_folder
from slam_hf.loading_utils import read_json
from slam_hf.quickstart import resolve_path


@dataclass
class PushArguments:
    repo_id: str = HfArg(help="Repository to publish to: `user/name`.")
    folder: str | None = HfArg(default=None, help="Folder of a model or of a codec.")
    corpus: str | None = HfArg(default=None, help="Folder of a tokenised corpus, instead of `folder`.")
    metric: str | None = HfArg(default=None, help="Metric to publish as a Space, instead of `folder`: `sblimp`, ...")
    space: str | None = HfArg(
        default=None,
        help="Repository of a model, `user/model` or `user/model@revision`, to publish its page as a Space, "
        "instead of `folder`.",
    )
    requirement: str | None = HfArg(
        default=None,
        help="What the Space of a model installs this package from, such as "
        "`slam-hf @ git+https://github.com/user/slam-hf`. Default: the Space carries the code.",
    )
    codec: str | None = HfArg(
        default=None,
        help="Repository of the model's codec, `user/codec` or `user/codec@revision`. The model will load it "
        "at this commit. Default: the codec that the processor was saved with.",
    )
    evaluations: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Summaries of `evaluate_model.py`, or their folders, for the card. Default: those in `evaluation` "
            "of the folder."
        },
    )
    license: str | None = HfArg(
        default=None,
        help="Licence for the card, as an identifier of the Hub, such as mit. Default: that of the card in the "
        "folder.",
    )
    card: str | None = HfArg(default=None, help="File with a card of your own, instead of the generated one.")
    private: bool = HfArg(default=False, help="Whether to make the repository private.")
    revision: str = HfArg(default="main", help="Branch to publish to.")
    tag: str | None = HfArg(default=None, help="Tag for this version, such as `v1`.")
    dry_run: bool = HfArg(default=False, help="Show the files and the card, and publish nothing.")
    page: str | None = HfArg(
        default=None,
        help="File that `dry_run` writes the card to, as HTML. Default: a temporary one, which opens in the "
        "browser if the output is a terminal.",
    )

    def __post_init__(self):
        if sum(source is not None for source in (self.folder, self.corpus, self.metric, self.space)) != 1:
            raise ValueError("Name one of `--folder`, `--corpus`, `--metric` and `--space`.")
        self.folder, self.corpus = (name and resolve_path(name) for name in (self.folder, self.corpus))


def prepare(args: PushArguments, folder: Path) -> tuple[str, list[str]]:
    """Put the files into `folder`. Returns the type of the repository, and patterns of the files to replace in it."""
    if args.corpus is not None:
        replaced = stage_corpus(Path(args.corpus).resolve(), folder)
        save_card(args, folder, lambda: render_dataset_card(folder, args.repo_id, args.license))
        return "dataset", replaced
    if args.metric is not None:
        metric_space(args.metric, folder, args.repo_id)
        return "space", []
    if args.space is not None:
        demo_space(args.space, folder, args.repo_id, args.codec, args.requirement, args.license)
        return "space", ["slam_hf/*"]
    prepare_model(args, Path(args.folder).resolve(), folder)
    return "model", ["model*.safetensors", "model.safetensors.index.json", "samples/*"]


def prepare_model(args: PushArguments, source: Path, folder: Path) -> None:
    stage(publishable_files(source), folder)
    export_remote_code(folder)
    license = args.license or read_license(source)
    if read_json(folder / "config.json")["model_type"] == "hubert_unit_codec":
        save_card(args, folder, lambda: render_codec_card(folder, args.repo_id, license))
        return
    if pin_codec(folder, args.codec) is None:
        print("The processor does not name a codec, which is needed to use the model on audio: see `--codec`.")
    stage_samples(source, folder)
    evaluations = args.evaluations or model_summaries(source)
    options = {"license": license, "revision": args.revision}
    save_card(args, folder, lambda: render_model_card(folder, args.repo_id, evaluations, **options))


def save_card(args: PushArguments, folder: Path, render: Callable[[], RepoCard]) -> None:
    if args.card is not None:
        check_content(Path(args.card))
    card = render() if args.card is None else RepoCard(Path(args.card).read_text(encoding="utf-8"))
    card.save(folder / "README.md")


def describe(folder: Path) -> str:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    rows = [f"{path.stat().st_size:>15,}  {path.relative_to(folder)}" for path in files]
    return "\n".join([*rows, "", (folder / "README.md").read_text(encoding="utf-8")])


def show_page(args: PushArguments, folder: Path) -> None:
    """Write the card as a page. A temporary one opens in the browser, if somebody is there to see it."""
    path = Path(args.page or Path(tempfile.mkdtemp(prefix="slam-hf-"), "card.html")).absolute()
    path.write_text(
        render_page(folder, f"{HUB}/{args.repo_id}/resolve/{quote(args.revision, safe='')}/"), encoding="utf-8"
    )
    print(f"The card as a page: {path}")
    if args.page is None and sys.stdout.isatty():
        webbrowser.open(path.as_uri())


def main(args: PushArguments) -> None:
    with staging_folder(args.folder or args.corpus) as scratch:
        folder = Path(scratch)
        repo_type, replaced = prepare(args, folder)
        if args.dry_run:
            show_page(args, folder)
            print(describe(folder))
            return
        commit = publish_folder(
            folder,
            args.repo_id,
            repo_type=repo_type,
            private=args.private,
            revision=args.revision,
            tag=args.tag,
            delete_patterns=replaced,
        )
    print(f"{commit.repo_url}\nCommit: {commit.oid}")


if __name__ == "__main__":
    run(lambda: main(*parse_arguments(__doc__, [PushArguments])))
