"""How the scripts read their arguments, and how they end: with a sentence where a user can mend what went wrong."""

import argparse
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser
from transformers.integrations import is_trackio_available
from transformers.utils import logging

from .atomic_write import DiskFullError
from .hub_client import fail_without_network


LAUNCHES = "With options of `accelerate launch`, such as --num_processes 2, several processes run it."


def parse_arguments(
    doc: str,
    dataclasses: Sequence[type],
    libraries: Sequence[type] = (),
    args: Sequence[str] | None = None,
    launches: bool = False,
    recipes: bool = False,
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
        launches (`bool`, *optional*, defaults to `False`):
            Whether several processes can run the script, as for those with `libraries`. With options of
            `accelerate launch` among its own, such as `--num_processes 2`, it is started again by accelerate, and this
            process ends with it.

        recipes (`bool`, *optional*, defaults to `False`):
            Whether the script takes recipes without `libraries` too.

    Returns:
        `tuple`: an instance of each dataclass.

    Raises:
        ValueError: an option is not known, or the recipe or a value is wrong.
    """
    args = list(sys.argv[1:] if args is None else args)
    options = help_options(doc)
    if not libraries and not recipes:
        if launches:
            options["epilog"] = LAUNCHES
        parser = HfArgumentParser(dataclasses, **options)
        check_options(parser, args, launches)
        return parser.parse_args_into_dataclasses(args)
    from .recipe_parser import RecipeParser

    if "--help" in args or "-h" in args:
        names = " and ".join(f"{library.__module__.split('.')[0]}.{library.__name__}" for library in libraries)
        accepted = f"All arguments of {names} are accepted too: --help_all lists them. " if libraries else ""
        options["epilog"] = accepted + LAUNCHES
        parser = HfArgumentParser(dataclasses, **options)
    else:
        parser = RecipeParser([*dataclasses, *libraries], **options)
    # The parser takes `--config` out of the command line before the other arguments.
    parser.add_argument("--config", default=argparse.SUPPRESS, help="A recipe: a YAML file with these arguments.")
    if libraries:
        # Where trackio is installed, runs report to it, on this machine: without the last default, transformers makes
        # a public Space of the logs of a model that is pushed. What a user names must be installed.
        reporter = "trackio" if is_trackio_available() else "none"
        parser.set_defaults(project="slam-hf", report_to=reporter, trackio_static_space_id=False)
        parser.add_argument("--help_all", action="help", help="List the arguments of transformers and TRL too.")
    check_options(parser, args, launches=True)
    return parser.parse_args_and_config(args)


def help_options(doc: str) -> dict[str, Any]:
    """Options of an `argparse.ArgumentParser` whose help begins with a docstring, and whose errors are one line."""
    text = "\n".join(line for line in inspect.cleandoc(doc).splitlines() if line != "```")
    return {
        "description": text,
        "formatter_class": _HelpFormatter,
        "usage": argparse.SUPPRESS,
        "allow_abbrev": False,
        "prog": os.environ.get("SLAM_HF_PROG"),  # of the command that started the script
    }


def check_options(parser: argparse.ArgumentParser, args: Sequence[str] | None = None, launches: bool = False) -> None:
    r"""
    Check the options of a command line before it is parsed: a mistyped one is unknown, and not another one missing.

    Args:
        parser (`argparse.ArgumentParser`):
            The parser of the script.
        args (sequence of `str`, *optional*):
            The command line. Defaults to that of the process.
        launches (`bool`, *optional*, defaults to `False`):
            Whether options of `accelerate launch` start the script again, as in [`parse_arguments`].

    Raises:
        ValueError: an option is not known. The message names the one that is most like it.
    """
    args = list(sys.argv[1:] if args is None else args)
    if {"-h", "--help", "--help_all"} & set(args):
        parser.parse_args(args)  # which shows what is required, and ends the process
    required = [action for action in parser._actions if action.required]
    for action in required:
        action.required = False
    namespace, unknown = parser.parse_known_args(args)
    for action in required:
        action.required = True
    if unknown and launches:
        unknown = _launch(parser, args, unknown)
    if not unknown:
        return
    name = unknown[0].partition("=")[0]
    if not name.startswith("-"):
        raise ValueError(f"'{name}' does not belong to an option.")
    nearest = get_close_matches(name, [f"--{known}" for known in vars(namespace)], n=1)
    hint = f"Did you mean {nearest[0]}?" if nearest else "See --help."
    raise ValueError(f"There is no option {name}. {hint}")


def _launch(parser: argparse.ArgumentParser, args: Sequence[str], unknown: Sequence[str]) -> list[str]:
    """
    Run the script by `accelerate launch` with the options that the script does not know, and end the process as the
    script ends. If accelerate does not know an option either, the rest is returned.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    script = getattr(sys.modules["__main__"], "__file__", "")  # none in a worker of pytest-xdist
    launcher = launch_command_parser()
    options, others = launcher.parse_known_args([*unknown, script])
    if others or options.training_script != script:
        return others or [options.training_script]
    parser.parse_known_args(args)  # which ends the process if a required option is missing
    ways = ("cpu", "multi_gpu", "tpu", "use_deepspeed", "use_fsdp", "use_megatron_lm")
    is_open = options.config_file is None and not any(getattr(options, way) for way in ways)
    # Without a GPU, accelerate starts one process, unless this switch asks for several.
    several = ["--multi_gpu"] if is_open and (options.num_processes or 1) > 1 else []
    left, own = iter(unknown), []
    option = next(left, None)
    for arg in args:  # `unknown` is a part of `args`, in the same order
        if arg == option:
            option = next(left, None)
        else:
            own.append(arg)
    try:
        launch_command(launcher.parse_args(["--quiet", *several, *unknown, script, *own]))
    except ChildFailedError as error:  # the script has said why
        raise SystemExit(error.get_first_failure()[1].exitcode) from None
    raise SystemExit


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
    logging.disable_progress_bar()  # of loading weights
    fail_without_network()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that cannot show "↑" gets "?" in its place
            stream.reconfigure(errors="replace")
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `head` reads no more of the output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except DiskFullError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}.") from None
    except Exception as error:
        is_known = isinstance(error, ImportError | OSError | ValueError)
        # Clients of object stores have errors of their own, for credentials and connections.
        is_known |= type(error).__module__.partition(".")[0] in ("azure", "botocore", "google")
        is_lost = _lost_process(error)
        if not (is_known or is_lost) or os.environ.get("SLAM_HF_TRACEBACK"):
            raise
        if is_lost:
            reason = str(error).splitlines()[0]
            error = (
                f"another process of this job has ended, or its machine does not answer ({reason}). {hint}".rstrip()
            )
        raise SystemExit(f"Error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(f"Interrupted. {hint}".rstrip()) from None


def _lost_process(error: Exception) -> bool:
    """Whether an error says that another process of a distributed job cannot be reached."""
    distributed = sys.modules.get("torch.distributed")
    if not isinstance(error, RuntimeError) or distributed is None or not distributed.is_initialized():
        return False
    is_of_gloo = re.search(r"gloo.*(by peer|[Cc]onnect|Timed out|Broken pipe)", str(error))
    return isinstance(error, distributed.DistError) or is_of_gloo is not None


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows choices, what is required, and defaults, but no path of this machine's user."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.help is None or "default" in action.help.lower():
            return action.help
        if action.required and action.option_strings:
            return f"{action.help} (required)"
        if action.default in (False, "", argparse.SUPPRESS) or not isinstance(
            action.default, str | int | float | Path
        ):
            return action.help
        default = str(action.default).replace(str(Path.home()), "~").replace("%", "%%")
        return f"{action.help} (default: {default})"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        # HfArgumentParser takes each name with hyphens too, and a flag with or without a value.
        names = ", ".join(name for name in action.option_strings if "-" not in name.strip("-"))
        if action.nargs in (0, "?"):
            return names
        return f"{names} {self._format_args(action, action.dest.upper())}"
