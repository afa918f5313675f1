"""How the scripts read their arguments, and how they end: with a sentence where a user can mend what went wrong."""

import argparse
import inspect
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser


def parse_arguments(
    doc: str, dataclasses: Sequence[type], libraries: Sequence[type] = (), args: Sequence[str] | None = None
) -> tuple[Any, ...]:
    r"""
    Parse the command line of a script.

    Args:
        doc (`str`):
            The script's docstring: `--help` begins with it.
        dataclasses (sequence of `type`):
            The script's own arguments, in the order of its help.
        libraries (sequence of `type`, *optional*):
            Arguments of transformers and TRL that the script takes too. They come with recipes (`--config`), and only
            `--help_all` lists them: there are hundreds.
        args (sequence of `str`, *optional*):
            The command line. Defaults to that of the process.

    Returns:
        `tuple`: an instance of each dataclass.
    """
    args = list(sys.argv[1:] if args is None else args)
    options = {"description": inspect.cleandoc(doc), "formatter_class": _HelpFormatter, "usage": "%(prog)s [options]"}
    if not libraries:
        return HfArgumentParser(dataclasses, **options).parse_args_into_dataclasses(args)
    from .training.arguments import RecipeParser

    if "--help" in args or "-h" in args:
        names = " and ".join(f"{library.__module__.split('.')[0]}.{library.__name__}" for library in libraries)
        options["epilog"] = f"All arguments of {names} are accepted too: --help_all lists them."
        parser = HfArgumentParser(dataclasses, **options)
    else:
        parser = RecipeParser([*dataclasses, *libraries], **options)
    # For the help: the parser takes it out of the command line before the other arguments.
    parser.add_argument("--config", default=argparse.SUPPRESS, help="A recipe: a YAML file with these arguments.")
    parser.add_argument("--help_all", action="help", help="List the arguments of transformers and TRL too.")
    return parser.parse_args_and_config(args) if isinstance(parser, RecipeParser) else parser.parse_args(args)


def run(main: Callable[[], None], hint: str = "") -> None:
    r"""
    Run the main function of a script. What a user can mend ends it with one line in place of a traceback, unless the
    environment has `SLAM_HF_TRACEBACK`.

    Args:
        main (`Callable`):
            The function.
        hint (`str`, *optional*):
            What to do after Ctrl-C, such as how to continue.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that cannot show "↑" gets "?" in its place
            stream.reconfigure(errors="replace")
    try:
        main()
    except (ImportError, OSError, ValueError) as error:
        if os.environ.get("SLAM_HF_TRACEBACK"):
            raise
        raise SystemExit(f"Error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(f"Interrupted. {hint}".rstrip()) from None


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there are any, and no path of this machine's user."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.default not in (None, False, argparse.SUPPRESS, "", [], {})
        if action.help is None or not has_default or "default" in action.help.lower():
            return action.help
        default = str(action.default).replace(str(Path.home()), "~").replace("%", "%%")
        return f"{action.help} (default: {default})"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # HfArgumentParser takes each name with hyphens too.
        metavar = "" if action.nargs == 0 else f" {action.dest.upper()}"
        return ", ".join(name for name in action.option_strings if "-" not in name.strip("-")) + metavar
