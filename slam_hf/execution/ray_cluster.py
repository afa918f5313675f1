"""Runs tasks on the nodes of a Ray cluster."""

import logging
from itertools import islice
from typing import Any

import ray
from datatrove.executor import RayPipelineExecutor
from ray.exceptions import RayError, RayTaskError


logger = logging.getLogger(__name__)


class RayExecutor(RayPipelineExecutor):
    """datatrove's executor would wait forever for a task whose process was killed, or whose node was lost while the
    task started. Here Ray starts the task again, up to three times. An error of a task is raised."""

    def __init__(
        self,
        pipeline: list,
        tasks: int,
        workers: int,
        logging_dir: str,
        skip_completed: bool,
        depends: None = None,
        cpus_per_task: float = 1,
        gpus_per_task: float = 0,
        mem_per_cpu_gb: float = 2,
        ray_remote_kwargs: dict[str, Any] | None = None,
    ):
        super().__init__(pipeline, tasks, workers, depends, skip_completed, logging_dir)
        self.resources = {
            "num_cpus": cpus_per_task,
            "num_gpus": gpus_per_task,
            "memory": int(mem_per_cpu_gb * cpus_per_task * 2**30),
            **(ray_remote_kwargs or {}),
        }

    def run(self) -> None:
        keys = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        needs = {keys[name]: number for name, number in self.resources.items() if name in keys}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= number for name, number in needs.items()) for node in nodes):
            logger.warning(f"No node of the Ray cluster has the resources of a task, {needs}: the tasks wait for one.")
        run_rank, executor = ray.remote(_run_rank).options(**self.resources), ray.put(self)
        ranks, running = iter(range(self.tasks)), []
        try:
            while True:
                free = self.workers - len(running)
                running += [run_rank.remote(executor, rank) for rank in islice(ranks, free)]
                if not running:
                    return
                ended, running = ray.wait(running)
                ray.get(ended)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise ChildProcessError(f"Ray lost a task again and again: {error}") from error


def _run_rank(executor: RayExecutor, rank: int) -> None:
    executor._run_for_rank(rank)
