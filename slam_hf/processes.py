"""The processes of a job: those of `accelerate launch` or `torchrun`, and the parent of a worker."""

import os
import signal
import threading
import time
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


LONGEST_WAIT = timedelta(days=30)
"""How long a process that has finished its share waits for the others. No job takes longer."""


def get_process_state() -> PartialState:
    """The state of this process, on a GPU where there is one, and on the CPU otherwise."""
    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=use_cpu, timeout=LONGEST_WAIT)


def exit_with_parent(parent: int) -> None:
    """End this process soon after its parent, which has the number `parent`, and not on Ctrl-C, which also reaches the
    parent. A worker whose parent was killed would otherwise go on, or wait forever for its results to be taken."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
