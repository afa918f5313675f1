"""How the scripts end: with a sentence where a user can mend what went wrong, and never with a traceback for it."""

import io
import sys
from collections.abc import Callable


def run(main: Callable[[], None], hint: str = "") -> None:
    r"""
    Run the main function of a script.

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
        raise SystemExit(f"Error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(f"Interrupted. {hint}".rstrip()) from None
