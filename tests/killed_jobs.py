"""Jobs in processes of their own, which can be killed, and the files that jobs leave."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from slam_hf.encoding.ledger import Ledger
from slam_hf.encoding.progress import JobProgress
from slam_hf.execution.arguments import ExecutorArguments


def read_files(folder: Path | str) -> dict[str, bytes]:
    """The content of each file below a folder by its path in it, the hidden ones too."""
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def start(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start a function in a process of its own."""
    process = get_context("fork").Process(target=_run_with_own_lock, args=(target, *arguments))
    process.start()
    return process


def _run_with_own_lock(target: Callable[..., Any], *arguments: Any) -> None:
    # tqdm's lock is one with the parent's, and a child that is killed while it holds it would keep it for ever.
    JobProgress.set_lock(threading.RLock())
    target(*arguments)


def run_two_at_once(target: Callable[..., Any], *arguments: Any) -> int:
    """Run a function in two processes, one a moment after the other, and return how many of them were refused."""
    processes = []
    for _ in range(2):
        processes.append(start(target, *arguments))
        time.sleep(random.uniform(0, 0.1))
    for process in processes:
        process.join(timeout=120)
    codes = [process.exitcode for process in processes]
    assert 0 in codes
    return sum(code != 0 for code in codes)


def run_and_die(job: Any, chunks: int) -> None:
    """Run a job in a process of its own, which is killed once it has written so many chunks."""
    process = start(_die_after, job, chunks)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _die_after(job: Any, chunks: int) -> None:
    add, added = Ledger.add, []

    def add_and_die(self, *arguments):
        add(self, *arguments)
        added.append(1)
        if len(added) == chunks:
            os.kill(os.getpid(), signal.SIGKILL)

    Ledger.add = add_and_die
    job.run(ExecutorArguments(workers=1))
