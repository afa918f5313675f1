"""Runs tasks in processes of this machine, each with a GPU of its own."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

import torch
from datatrove.executor import LocalPipelineExecutor
from datatrove.utils.logging import logger
from transformers.utils.logging import disable_progress_bar

from ..processes import exit_with_parent


START_METHOD = "spawn"
"""A forked process cannot use a GPU that its parent has used."""

MAX_RESTARTS = 3
"""How often the tasks of killed processes start again: as often as on Ray."""


class LocalExecutor(LocalPipelineExecutor):
    """datatrove's executor would wait forever for a task whose process was killed, and its processes may not start
    others, such as those of a DataLoader. Here the tasks that have not ended start again in new processes. A single
    worker is this process itself. An error of a task ends the others, and is raised."""

    def run(self) -> None:
        if self.workers == 1:
            for rank in range(self.tasks):
                self._run_for_rank(rank)
            return
        for _ in range(1 + MAX_RESTARTS):
            with suppress(BrokenProcessPool, ChildProcessError):
                return self._run_in_pool(self.get_incomplete_ranks(skip_completed=True))
        raise ChildProcessError(
            "Processes were killed again and again, as happens when memory runs out. Start the same command again to "
            "continue, with fewer workers."
        )

    def _run_in_pool(self, ranks: list[int]) -> None:
        context = multiprocessing.get_context(START_METHOD)
        numbers = context.SimpleQueue()
        for number in range(self.workers):
            numbers.put(number)
        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(self.workers, context, _prepare_worker, (os.getpid(), numbers, self.workers)) as pool:
            try:
                for task in as_completed([pool.submit(self._run_for_rank, rank) for rank in ranks]):
                    task.result()
            finally:
                # A pool asks its workers to end, and would wait forever if one is killed while it waits for work.
                for process in set(multiprocessing.active_children()) - others:
                    process.kill()


def _prepare_worker(parent: int, numbers: Any, num_workers: int) -> None:
    """Give this process its share of the machine."""
    exit_with_parent(parent)
    logger.disable("datatrove")
    disable_progress_bar()  # of loading weights
    # Not the method that this process was started by: each process of a DataLoader would import everything again.
    multiprocessing.set_start_method(None, force=True)
    torch.set_num_threads(max(1, torch.get_num_threads() // num_workers))
    if num_devices := torch.accelerator.device_count():
        torch.accelerator.set_device_index(numbers.get() % num_devices)
