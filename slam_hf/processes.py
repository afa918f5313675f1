"""This process among those of `accelerate launch` or `torchrun`."""

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
