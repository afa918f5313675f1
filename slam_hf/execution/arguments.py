"""Arguments of the scripts that run on an executor: where the work runs, and in how many tasks."""

import inspect
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from transformers.hf_argparser import HfArg

from ..remote_files import local_path


TASKS_PER_WORKER = 8
"""Default number of tasks for each of several workers: the others take over the tasks of a slow or lost worker."""

OWN_OPTIONS = {"executor", "workers", "tasks", "executor_config"}
"""Arguments that are not passed on to the executor under their names."""

DEFAULTS = {"cpus_per_task": 4, "mem_per_cpu_gb": 4}
"""Resources of a task on a cluster. datatrove's defaults, one CPU with 2 GB, are for text."""


@dataclass
class ExecutorArguments:
    r"""
    Where a step runs: on this machine, a Slurm or Ray cluster, or Hugging Face Jobs, by datatrove's executors.

    Raises:
        ValueError: an option belongs to another executor, or one that this executor needs is missing.
    """

    _argument_group_name = "where it runs"

    executor: Literal["local", "slurm", "ray", "jobs"] = HfArg(
        default="local", help="This machine, a Slurm or Ray cluster, or Hugging Face Jobs."
    )
    workers: int | None = HfArg(
        default=None, help="Number of tasks at a time. Default on this machine: one per GPU, or one."
    )
    tasks: int | None = HfArg(
        default=None,
        help="Number of tasks that the work is divided into. The result does not depend on it. Default: "
        f"{TASKS_PER_WORKER} for each of several workers, so that a slow one gets fewer.",
    )
    cpus_per_task: int | None = HfArg(default=None, help="Slurm, Ray: CPUs of a task. Default: 4.")
    gpus_per_task: int | None = HfArg(default=None, help="Slurm, Ray: GPUs of a task. Default: none.")
    mem_per_cpu_gb: int | None = HfArg(default=None, help="Slurm, Ray: memory, in GB. Default: 4.")
    time: str | None = HfArg(default=None, help="Slurm, Jobs: time limit of a task, 12:00:00 or 12h.")
    partition: str | None = HfArg(default=None, help="Slurm: partition.")
    qos: str | None = HfArg(default=None, help="Slurm: quality of service. Default: normal.")
    env_command: str | None = HfArg(
        default=None, help="Slurm: command that activates the environment, such as 'source venv/bin/activate'."
    )
    flavor: str | None = HfArg(default=None, help="Jobs: hardware, such as a10g-small. Default: cpu-basic.")
    image: str | None = HfArg(default=None, help="Jobs: Docker image, which has uv.")
    namespace: str | None = HfArg(default=None, help="Jobs: user or organisation that pays.")
    dependencies: list[str] | None = HfArg(
        default=None, help="Jobs: requirements that pip can install, this package among them."
    )
    executor_config: str | None = HfArg(
        default=None, help="YAML file with any arguments of datatrove's executor. Options of the command line win."
    )

    def __post_init__(self):
        for name in ("workers", "tasks"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: expected at least 1.")
        if self.workers is None and self.executor == "local":
            self.workers = max(1, torch.accelerator.device_count())
        if self.workers is None:
            raise ValueError(f"`executor {self.executor}` needs `workers`: the number of tasks that run at once.")
        if self.tasks is None:
            self.tasks = TASKS_PER_WORKER * self.workers if self.workers > 1 or self.executor != "local" else 1

    def check_reach(self, *paths: str) -> None:
        """Raise `ValueError` if one of these paths is on this machine, and the tasks run where they cannot read it."""
        for path in paths if self.executor == "jobs" else ():
            if os.path.exists(local_path(path) or ""):
                raise ValueError(f"Hugging Face Jobs cannot reach '{path}': they need a repository or a URL.")

    def options(self, executor_class: type) -> dict[str, Any]:
        """The arguments of a datatrove executor that depend on where it runs. A `ValueError` names an argument that
        the executor does not take, or one that it needs."""
        options = {} if self.executor_config is None else _read_yaml(self.executor_config)
        given = {name: value for name, value in asdict(self).items() if value is not None}
        options |= {name: value for name, value in given.items() if name not in OWN_OPTIONS}
        parameters = dict(inspect.signature(executor_class).parameters)
        for name in ("pipeline", "tasks", "workers", "logging_dir", "depends", "skip_completed"):
            del parameters[name]
        if "time" in options and self.executor == "jobs":
            options["timeout"] = options.pop("time")
        if unknown := options.keys() - parameters.keys():
            raise ValueError(f"`executor {self.executor}` does not take `{min(unknown)}`: remove it.")
        needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
        needed |= {"dependencies"} & parameters.keys()  # the default lacks this package
        if missing := needed - options.keys():
            raise ValueError(f"`executor {self.executor}` needs `{min(missing)}`.")
        if self.executor == "slurm" and not isinstance(options["time"], str):
            raise ValueError(f"`time` is {options['time']}: YAML needs quotes, such as '12:00:00'.")
        return (DEFAULTS if self.executor in ("slurm", "ray") else {}) | options


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        options = yaml.safe_load(Path(path).read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(options, dict):
        raise ValueError(f"'{path}' should have a line `name: value` for each argument of the executor.")
    return options
