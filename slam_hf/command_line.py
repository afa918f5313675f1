"""How the scripts read their arguments, and how they end: with a sentence where a user can mend what went wrong."""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from transformers.integrations import is_trackio_available
from transformers.utils import logging

from .atomic_write import DiskFullError
from .hub_client import fail_without_network
from .option_parser import OptionParser


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
    if not libraries and not recipes:
        return OptionParser(dataclasses, doc, launches).parse_args_into_dataclasses(args)
    from .recipe_parser import RecipeParser

    args = list(sys.argv[1:] if args is None else args)
    asks_for_help = bool({"-h", "--help"} & set(args))
    parser = RecipeParser(dataclasses if asks_for_help else [*dataclasses, *libraries], doc, launches=True)
    # The parser takes `--config` out of the command line before the other arguments.
    parser.add_argument("--config", default=argparse.SUPPRESS, help="A recipe: a YAML file with these arguments.")
    if libraries:
        # Where trackio is installed, runs report to it, on this machine: without the last default, transformers makes
        # a public Space of the logs of a model that is pushed. What a user names must be installed.
        reporter = "trackio" if is_trackio_available() else "none"
        parser.set_defaults(project="slam-hf", report_to=reporter, trackio_static_space_id=False)
        parser.add_argument("--help_all", action="help", help="List the arguments of transformers and TRL too.")
        names = " and ".join(f"{library.__module__.split('.')[0]}.{library.__name__}" for library in libraries)
        parser.epilog = f"All arguments of {names} are accepted too: --help_all lists them. {parser.epilog}"
    return parser.parse_args_and_config(args)


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
