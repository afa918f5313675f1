"""The command `slam-hf`: each script of this folder is a subcommand.

It starts a script as `python hub_scripts/<script>.py` does, and finds recipes by name. Nothing else is imported before
a script starts, so that `slam-hf --help` answers at once.
"""

import argparse
import ast
import contextlib
import io
import os
import re
import runpy
import sys
import textwrap
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path


SCRIPTS = Path(__file__).parent

SHORT_NAMES = {
    "align_dpo": "align",
    "continue_speech": "continue",
    "convert_checkpoint": "convert",
    "evaluate_model": "evaluate",
    "push_to_hub": "push",
    "tokenize_corpus": "tokenize",
}
"""Subcommands that are shorter than the names of their scripts. Others are the names of the scripts, with hyphens."""

FOLDERS = {"config": "recipes", "accelerate_config": "accelerate_configs"}
"""Options that take the name of a file in a folder here, or a path."""


def list_commands() -> dict[str, Path]:
    """`dict[str, Path]`: The scripts, by the names of their subcommands."""
    scripts = {path.stem: path for path in SCRIPTS.glob("*.py") if not path.stem.startswith("_")}
    return dict(sorted((SHORT_NAMES.get(stem, stem.replace("_", "-")), path) for stem, path in scripts.items()))


def describe_commands(commands: dict[str, Path]) -> str:
    lines = [
        "usage: slam-hf <command> [options]",
        "",
        "Speech language models: hear, train, align, score and publish them.",
        "",
        "slam-hf continue recording.wav -o continuation.wav",
        "slam-hf pretrain --config quickstart",
        "",
        "commands:",
    ]
    for name, path in commands.items():
        paragraph, _, _ = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n\n")
        sentence = adapt_help(re.sub(r"\.\s.*", ".", paragraph, flags=re.DOTALL))
        lines.append(textwrap.fill(sentence, 100, initial_indent=f"  {name:20}", subsequent_indent=" " * 22))
    lines += ["", f"recipes for --config: {', '.join(list_names('recipes'))}", ""]
    return "\n".join([*lines, "slam-hf <command> --help lists the options of a command."])


def list_names(folder: str) -> list[str]:
    return sorted(path.stem for path in (SCRIPTS / folder).glob("*.yaml"))


def find_files(args: list[str]) -> list[str]:
    """Replace the name of a recipe or of a configuration of accelerate by its path. Paths stay as they are."""
    options = {"prog": os.environ["SLAM_HF_PROG"], "usage": argparse.SUPPRESS}
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, **options)
    for option in FOLDERS:
        parser.add_argument(f"--{option}")
    given, rest = parser.parse_known_args(args)
    for option, folder in FOLDERS.items():
        value = getattr(given, option)
        if value is None:
            continue
        path, names = SCRIPTS / folder / f"{value}.yaml", list_names(folder)
        if not Path(value).is_file():
            if value not in names:
                raise SystemExit(f"Error: --{option} takes a file or one of {', '.join(names)}, and not '{value}'.")
            value = str(path)
        rest += ["--config_file" if option == "accelerate_config" else f"--{option}", value]
    return rest


def adapt_help(text: str) -> str:
    """The help of a script, with the examples as calls of `slam-hf`."""
    names = {path.stem: name for name, path in list_commands().items()}
    scripts = rf"(?:hub_scripts/)?\b({'|'.join(names)})\.py\b"
    text = re.sub(r"--config_file hub_scripts/accelerate_configs/(\w+)\.yaml", r"--accelerate_config \1", text)
    text = re.sub(r"hub_scripts/recipes/([\w-]+)\.yaml", r"\1", text)
    options = r"((?:\s+--\w+(?: [\w./-]+)?)*)"
    text = re.sub(
        rf"(?:python|accelerate launch){options}\s+(?:\\\n\s*)?{scripts}",
        lambda call: f"slam-hf {names[call[2]]}{call[1]}",
        text,
    )
    return re.sub(scripts, lambda script: f"slam-hf {names[script[1]]}", text)


def main() -> None:
    commands, args = list_commands(), sys.argv[1:]
    if not args or args[0] in ("-h", "--help"):
        print(describe_commands(commands))
        return
    if args[0] == "--version":
        print(f"slam-hf {version('slam-hf')}")
        return
    name, *args = args
    if name not in commands:
        known = {path.stem: command for command, path in commands.items()} | {command: command for command in commands}
        nearest = get_close_matches(name, known, n=1)
        hint = f"did you mean {known[nearest[0]]}? " if nearest else ""
        print(f"slam-hf: there is no command '{name}': {hint}slam-hf --help lists them.", file=sys.stderr)
        raise SystemExit(2)
    os.environ["SLAM_HF_PROG"] = f"slam-hf {name}"
    sys.argv[1:] = find_files(args)
    sys.path.insert(0, str(SCRIPTS))  # as for `python hub_scripts/<script>.py`
    shown = io.StringIO()
    asks = bool({"-h", "--help"} & set(args))
    try:
        with contextlib.redirect_stdout(shown) if asks else contextlib.nullcontext():
            runpy.run_path(str(commands[name]), run_name="__main__")
    except KeyboardInterrupt:  # before the script itself handles it
        raise SystemExit(130) from None
    finally:
        print(adapt_help(shown.getvalue()), end="")


if __name__ == "__main__":
    main()
