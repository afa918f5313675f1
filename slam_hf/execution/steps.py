"""Runs a step in many tasks, and then a closing step."""

import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .arguments import ExecutorArguments


if TYPE_CHECKING:
    from datatrove.executor.base import PipelineExecutor

Step = Callable[[Any, int, int], Any]
"""Called as `step(data, rank, world_size)`. A step is pickled for other processes and machines: it is an instance
of a dataclass with paths, names and numbers, or its method, from a module that they can import."""


def choose_executor(args: ExecutorArguments, logging_dir: str) -> tuple[type["PipelineExecutor"], dict[str, Any]]:
    """The executor of these arguments, and its options. [`run_steps`] raises the errors; a job calls this before its
    input is listed, which may take long, to raise them at once."""
    # These take 0.7 s to import, which the help of the scripts should not.
    from datatrove.executor import JobsPipelineExecutor, SlurmPipelineExecutor
    from datatrove.utils.logging import logger

    from .local import LocalExecutor

    logger.disable("datatrove")
    match args.executor:
        case "local":
            executor_class = LocalExecutor
        case "slurm":
            executor_class = SlurmPipelineExecutor
            if shutil.which("sbatch") is None:
                raise ValueError("There is no `sbatch` here: start on a machine of the Slurm cluster.")
        case "ray":
            _connect_to_ray()
            from .ray_cluster import RayExecutor as executor_class
        case "jobs":
            executor_class = JobsPipelineExecutor
            if "://" not in logging_dir:
                raise ValueError(f"Hugging Face Jobs cannot reach '{logging_dir}': write to hf:// or s3://.")
    return executor_class, args.options(executor_class)


def run_steps(step: Step, closing: Step, args: ExecutorArguments, logging_dir: str) -> bool:
    r"""
    Run a step in as many tasks as the arguments say, and then a closing step in one.

    Tasks run at the same time or one after the other, in any order, and a lost task runs again. So a step should do
    only what is missing, and the closing step should check that nothing is missing.

    Args:
        step (`Callable`):
            Called as `step(None, rank, world_size)` with each rank from 0, in processes of this machine or of others.
            One worker on this machine is this process.
        closing (`Callable`):
            Called as `closing(None, 0, 1)`: in this process, or in a job of Slurm or Hugging Face Jobs.
        args ([`ExecutorArguments`]):
            Where the step runs, and in how many tasks.
        logging_dir (`str`):
            Hidden folder for the logs of each run, removed when the work is done in this process. Other machines must
            be able to write to it: Hugging Face Jobs need `hf://` or `s3://`, Slurm and Ray that or a shared file
            system.

    Returns:
        `bool`: whether the work is done. Jobs of Slurm are only submitted. Their closing step runs after the last
        task, even if some tasks have failed.

    Raises:
        ChildProcessError: tasks were killed again and again, or have failed as Hugging Face Jobs. Other errors of a
            step are raised themselves.
        ValueError: the executor does not take the arguments, or the executor is not available here.
    """
    from datatrove.io import get_datafolder

    executor_class, options = choose_executor(args, logging_dir)
    run_dir = f"{logging_dir}/{time.strftime('%Y-%m-%dT%H-%M-%S')}-{secrets.token_hex(3)}"

    def make(step: Step, name: str, **more: Any) -> "PipelineExecutor":
        # The step finds out what is finished: datatrove's marks stay where the work that they stand for was removed.
        return executor_class([step], logging_dir=f"{run_dir}/{name}", skip_completed=False, **options, **more)

    tasks = make(step, "tasks", tasks=args.tasks, workers=args.workers)
    if args.executor == "slurm":
        try:
            make(closing, "closing", tasks=1, depends=tasks, run_on_dependency_fail=True).run()
        except subprocess.CalledProcessError as error:
            raise ValueError(f"`sbatch` refused '{run_dir}/tasks/launch_script.slurm', see above.") from error
        return False
    _run(tasks)
    if args.executor == "jobs":
        _run(make(closing, "closing", tasks=1, depends=tasks))
    else:
        closing(None, 0, 1)
        get_datafolder(logging_dir).rm("", recursive=True)
    return True


def _run(executor: "PipelineExecutor") -> None:
    executor.run()
    executor.logging_dir.fs.invalidate_cache()
    if lost := executor.get_incomplete_ranks(skip_completed=True):
        log = executor.logging_dir.resolve_paths(f"logs/task_{lost[0]:05d}.log")
        raise ChildProcessError(
            f"{len(lost)} of {executor.world_size} tasks have failed. The log of the first is '{log}'. Start the same "
            "command again to continue."
        )


def _connect_to_ray() -> None:
    try:
        import ray
    except ImportError:
        raise ImportError('Ray is missing: pip install "slam-hf[ray]".') from None
    try:
        ray.init("auto", ignore_reinit_error=True, log_to_driver=False, logging_level="error")
    except ConnectionError:
        raise ValueError("There is no Ray cluster here: start one with `ray start`, or set RAY_ADDRESS.") from None
