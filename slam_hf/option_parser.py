"""The parser of the scripts' options, which names a mistyped one and runs a script by `accelerate launch`."""

import argparse
import inspect
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

from transformers import HfArgumentParser


LAUNCHES = "With options of `accelerate launch`, such as --num_processes 2, several processes run it."


def with_help(cls: type) -> type:
    """A decorator of dataclasses: the descriptions of arguments in the docstring become the help of their options."""
    doc = inspect.cleandoc(cls.__doc__ or "") + "\n"  # Python 3.13 has removed the indentation, and -OO the docstring
    entries = re.findall(r"^ {4}(\w+) \(.*\):\n((?: {8}.*\n)+)", doc, re.MULTILINE)
    descriptions = {name: " ".join(text.split()).replace("%", "%%") for name, text in entries}
    for argument in fields(cls):
        if argument.name in descriptions:
            # Without the marks of code and references.
            argument.metadata = {"help": re.sub(r"\[`~?[\w.]*?(\w+)`\]|`", r"\1", descriptions[argument.name])}
    return cls


class OptionParser(HfArgumentParser):
    r"""
    A parser whose errors are one line, and which names a mistyped option before any other mistake.

    Args:
        dataclasses (sequence of `type`, *optional*):
            The options, as the fields of dataclasses.
        doc (`str`, *optional*):
            The docstring of the script, which the help begins with.
        launches (`bool`, *optional*, defaults to `False`):
            Whether options of `accelerate launch`, such as `--num_processes 2`, start the script again by accelerate.
            This process then ends with it.

    Raises:
        ValueError: an option is not known. The message names the one that is most like it.
    """

    def __init__(self, dataclasses: Sequence[type] = (), doc: str = "", launches: bool = False):
        super().__init__(
            dataclasses,
            description="\n".join(line for line in inspect.cleandoc(doc).splitlines() if line != "```"),
            formatter_class=_HelpFormatter,
            usage=argparse.SUPPRESS,
            allow_abbrev=False,
            prog=os.environ.get("SLAM_HF_PROG"),  # of the command that started the script
            epilog=LAUNCHES if launches else None,
        )
        self.launches = launches
        self.command: Sequence[str] | None = None  # the whole one, where it is parsed in parts

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        self._args = sys.argv[1:] if args is None else list(args)
        namespace, unknown = super().parse_known_args(self._args, namespace)
        others = _launch(unknown, self.command or self._args) if unknown and self.launches else unknown
        if others:
            self._refuse(others[0])
        return namespace, []

    def error(self, message: str) -> NoReturn:
        # Where an option is mistyped, another one may be missing, and its value seems to belong elsewhere.
        known = self._names()
        if self.launches:
            from accelerate.commands.launch import launch_command_parser

            known |= {name for action in launch_command_parser()._actions for name in action.option_strings}
        for arg in takewhile(lambda arg: arg != "--", self._args):
            if arg.startswith("--") and arg.partition("=")[0] not in known:
                self._refuse(arg)
        super().error(message)

    def _names(self) -> set[str]:
        return {name for action in self._actions for name in action.option_strings}

    def _refuse(self, arg: str) -> NoReturn:
        name = arg.partition("=")[0]
        if not name.startswith("-"):
            raise ValueError(f"'{name}' does not belong to an option.")
        nearest = get_close_matches(name, self._names(), n=1)
        raise ValueError(
            f"There is no option {name}. " + (f"Did you mean {nearest[0]}?" if nearest else "See --help.")
        )


def _launch(unknown: Sequence[str], command: Sequence[str]) -> list[str]:
    """
    Run the script by `accelerate launch` with the options of its command line that it does not know, and end the
    process as the script ends. If accelerate does not know an option either, the rest is returned.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    script = getattr(sys.modules["__main__"], "__file__", "")  # none in a worker of pytest-xdist
    options, others = launch_command_parser().parse_known_args([*unknown, script])
    if others or options.training_script != script:
        return others or [options.training_script]
    ways = ("cpu", "multi_gpu", "tpu", "use_deepspeed", "use_fsdp", "use_megatron_lm")
    if options.config_file is None and not any(getattr(options, way) for way in ways):
        # Without a GPU, accelerate starts one process, unless this switch asks for several.
        options.multi_gpu = (options.num_processes or 1) > 1
    left = iter(unknown)
    option = next(left, None)
    for arg in command:  # `unknown` is a part of it, in the same order
        if arg == option:
            option = next(left, None)
        else:
            options.training_script_args.append(arg)
    options.quiet = True
    try:
        launch_command(options)
    except ChildFailedError as error:  # the script has said why
        raise SystemExit(error.get_first_failure()[1].exitcode) from None
    raise SystemExit


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
