import pytest
import torch
from datatrove.executor import JobsPipelineExecutor, SlurmPipelineExecutor

from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.execution.local import LocalExecutor


@pytest.mark.parametrize(
    ("num_devices", "given", "workers", "tasks"),
    [
        (0, {}, 1, 1),
        (4, {}, 4, 32),
        (4, {"workers": 2}, 2, 16),
        (0, {"workers": 3, "tasks": 7}, 3, 7),
        (0, {"executor": "ray", "workers": 1}, 1, 8),
    ],
)
def test_tasks_outnumber_workers_of_which_each_device_has_one(monkeypatch, num_devices, given, workers, tasks):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: num_devices)

    args = ExecutorArguments(**given)

    assert (args.workers, args.tasks) == (workers, tasks)


def test_a_cluster_needs_a_number_of_workers():
    with pytest.raises(ValueError, match="^`executor slurm` needs `workers`: the number of tasks that run at once.$"):
        ExecutorArguments("slurm")


@pytest.mark.parametrize("name", ["workers", "tasks"])
def test_there_is_at_least_one(name):
    with pytest.raises(ValueError, match=f"^`{name}` is 0: expected at least 1.$"):
        ExecutorArguments(**{name: 0})


def test_options_of_the_command_line_come_before_those_of_the_file(tmp_path):
    config = tmp_path / "slurm.yaml"
    config.write_text("partition: slow\ntime: '2:00:00'\nsbatch_args: {account: me}\n")
    args = ExecutorArguments("slurm", workers=2, partition="fast", gpus_per_task=1, executor_config=str(config))

    assert args.options(SlurmPipelineExecutor) == {
        "partition": "fast",
        "time": "2:00:00",
        "sbatch_args": {"account": "me"},
        "gpus_per_task": 1,
        "cpus_per_task": 4,
        "mem_per_cpu_gb": 4,
    }


@pytest.mark.parametrize(
    ("executor", "executor_class", "given", "config", "message"),
    [
        ("local", LocalExecutor, {"partition": "gpu"}, "", "`executor local` does not take `partition`: remove it."),
        ("local", LocalExecutor, {}, "tasks: 5", "`executor local` does not take `tasks`: remove it."),
        ("jobs", JobsPipelineExecutor, {"gpus_per_task": 1}, "", "`executor jobs` does not take `gpus_per_task`"),
        ("jobs", JobsPipelineExecutor, {}, "", "`executor jobs` needs `dependencies`."),
        ("slurm", SlurmPipelineExecutor, {"time": "1:00:00"}, "", "`executor slurm` needs `partition`."),
        ("slurm", SlurmPipelineExecutor, {"partition": "gpu"}, "", "`executor slurm` needs `time`."),
        ("slurm", SlurmPipelineExecutor, {"partition": "gpu"}, "time: 12:00:00", "`time` is 43200: YAML needs quotes"),
        ("local", LocalExecutor, {}, "- a", "executor.yaml' should have a line `name: value` for each argument"),
        ("local", LocalExecutor, {}, "a: [", "executor.yaml' is not YAML: while parsing"),
    ],
)
def test_wrong_options_are_named(tmp_path, executor, executor_class, given, config, message):
    if config:
        (tmp_path / "executor.yaml").write_text(config)
        given = {**given, "executor_config": str(tmp_path / "executor.yaml")}
    args = ExecutorArguments(executor, workers=2, **given)

    with pytest.raises(ValueError, match=message):
        args.options(executor_class)


def test_the_time_limit_of_jobs_has_another_name():
    args = ExecutorArguments("jobs", workers=2, time="12h", flavor="a10g-small", dependencies=["slam-hf"])

    assert args.options(JobsPipelineExecutor) == {
        "timeout": "12h",
        "flavor": "a10g-small",
        "dependencies": ["slam-hf"],
    }
