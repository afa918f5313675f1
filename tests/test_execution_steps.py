import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import fsspec
import psutil
import pytest
import torch

from slam_hf.execution import local
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.execution.steps import run_steps


@dataclass(frozen=True)
class Write:
    """Writes a file for each task, and can be killed or fail at one of them."""

    folder: str
    killed_at: int | None = None
    fails_at: int | None = None

    def __call__(self, data, rank, world_size):
        if rank == self.fails_at:
            raise ValueError("The task failed.")
        if rank == self.killed_at:
            with open(f"{self.folder}/killed", "a") as file:
                file.write("x")
            if os.stat(f"{self.folder}/killed").st_size == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        child = multiprocessing.Process(target=print)  # as a DataLoader starts
        child.start()
        child.join()
        with fsspec.open(f"{self.folder}/{rank}", "w") as file:
            file.write(f"{world_size} {os.getpid()} {multiprocessing.get_start_method()}")


@dataclass(frozen=True)
class Close:
    folder: str

    def __call__(self, data, rank, world_size):
        with fsspec.open(f"{self.folder}/closed", "w") as file:
            file.write(f"{rank} of {world_size}")


def run(folder, args, **step):
    (folder / "out").mkdir()
    return run_steps(Write(f"{folder}/out", **step), Close(f"{folder}/out"), args, f"{folder}/logs")


def read_out(folder):
    return {path.name: path.read_text() for path in Path(folder, "out").iterdir()}


def test_one_worker_is_this_process(tmp_path, capfd):
    assert run(tmp_path, ExecutorArguments(tasks=3)) is True

    expected = {str(rank): f"3 {os.getpid()} {multiprocessing.get_start_method()}" for rank in range(3)}
    assert read_out(tmp_path) == {**expected, "closed": "0 of 1"}
    assert os.listdir(tmp_path) == ["out"]  # no logs
    assert "datatrove" not in "".join(capfd.readouterr())


@pytest.fixture
def _fork(monkeypatch):
    """Start processes quickly."""
    monkeypatch.setattr(local, "START_METHOD", "fork")


@pytest.mark.usefixtures("_fork")
def test_a_killed_worker_does_not_stop_the_others(tmp_path, capfd):
    assert run(tmp_path, ExecutorArguments(workers=2, tasks=5), killed_at=1) is True

    out = read_out(tmp_path)
    assert out.pop("killed") == "xx"
    assert out.pop("closed") == "0 of 1"
    assert sorted(out) == ["0", "1", "2", "3", "4"]
    assert str(os.getpid()) not in {text.split()[1] for text in out.values()}
    # Their DataLoaders do not import everything again in each process.
    assert {text.split()[2] for text in out.values()} == {multiprocessing.get_start_method()}
    assert "Traceback" not in capfd.readouterr().err


@dataclass(frozen=True)
class StopTheOther:
    """The last task stops the worker that waits for more, as if it were killed at the moment when the work is done."""

    folder: str

    def __call__(self, data, rank, world_size):
        Path(self.folder, f"{rank}-{os.getpid()}").touch()
        while not (other := list(Path(self.folder).glob(f"{1 - rank}-*"))):  # each has a worker of its own
            time.sleep(0.01)
        if rank == 1:
            time.sleep(0.5)
            os.kill(int(other[0].name.removeprefix("0-")), signal.SIGSTOP)


@pytest.mark.usefixtures("_fork")
def test_a_worker_that_does_not_end_is_not_waited_for(tmp_path):
    args = ExecutorArguments(workers=2, tasks=2)
    steps = (StopTheOther(str(tmp_path)), Close(str(tmp_path)), args, f"{tmp_path}/logs")
    process = multiprocessing.get_context("fork").Process(target=run_steps, args=steps)
    process.start()
    process.join(timeout=60)
    is_hung = process.is_alive()
    if is_hung:
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.kill()

    assert not is_hung and process.exitcode == 0
    assert (tmp_path / "closed").exists()


@pytest.mark.usefixtures("_fork")
def test_workers_that_are_killed_again_and_again_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "MAX_RESTARTS", 0)

    with pytest.raises(
        ChildProcessError, match="^Processes were killed again and again.*Start the same command again"
    ):
        run(tmp_path, ExecutorArguments(workers=2, tasks=2), killed_at=1)

    assert "closed" not in read_out(tmp_path)


@pytest.mark.usefixtures("_fork")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_is_raised(tmp_path, workers):
    with pytest.raises(ValueError, match="^The task failed.$"):
        run(tmp_path, ExecutorArguments(workers=workers, tasks=3), fails_at=0)

    assert "closed" not in read_out(tmp_path)


def test_each_worker_has_a_device(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    chosen = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(local, "exit_with_parent", lambda parent: None)
    numbers = iter(range(3))

    for _ in range(3):
        local._prepare_worker(os.getpid(), SimpleNamespace(get=lambda: next(numbers)), 3)

    assert chosen == [2, 0, 2, 1, 2, 0]


def run_slurm_job(script, rank):
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(rank), "SLURM_NODELIST": "node1", "SLURM_JOB_ID": "40"}
    environment["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent)])
    subprocess.run(["bash", script], env=environment, check=True, capture_output=True, timeout=240)


def test_slurm_gets_an_array_of_tasks_and_a_closing_job(tmp_path, slurm):
    args = ExecutorArguments(
        "slurm", workers=2, tasks=6, partition="gpu", time="12:00:00", gpus_per_task=1, qos="high"
    )
    args.env_command = "source venv/bin/activate"

    assert run(tmp_path, args) is False

    arguments = [(slurm / f"{number}.args").read_text().split()[:-1] for number in range(4)]
    assert arguments == [
        ["--export=ALL,RUN_OFFSET=0"],
        [],  # merges the statistics
        ["--export=ALL,RUN_OFFSET=0", "--dependency=afterany:40"],
        [],
    ]
    tasks, closing = [(slurm / f"{number}.sh").read_text() for number in (0, 2)]
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", tasks, re.MULTILINE))
    assert (
        options.items()
        >= {
            "array": "0-5%2",
            "partition": "gpu",
            "time": "12:00:00",
            "gpus": "1",
            "qos": "high",
            "cpus-per-task": "4",
            "mem-per-cpu": "4G",
            "requeue": "",
        }.items()
    )
    assert re.search(r"^source venv/bin/activate$", tasks, re.MULTILINE)
    (run_dir,) = (tmp_path / "logs").iterdir()
    assert f"-l -n 1 launch_pickled_pipeline {run_dir}/tasks/executor.pik\n" in tasks
    assert "#SBATCH --array=0-0\n" in closing
    assert f"launch_pickled_pipeline {run_dir}/closing/executor.pik\n" in closing
    assert read_out(tmp_path) == {}


@pytest.mark.slow
def test_the_jobs_of_slurm_run(tmp_path, slurm):
    run(tmp_path, ExecutorArguments("slurm", workers=2, tasks=3, partition="cpu", time="1:00:00"))

    run_slurm_job(slurm / "0.sh", rank=1)
    assert read_out(tmp_path)["1"].startswith("3 ")
    run_slurm_job(slurm / "2.sh", rank=0)
    assert read_out(tmp_path)["closed"] == "0 of 1"


def test_without_slurm_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ValueError, match="^There is no `sbatch` here: start on a machine of the Slurm cluster.$"):
        run(tmp_path, ExecutorArguments("slurm", workers=2, partition="cpu", time="1:00:00"))


def test_a_script_that_slurm_refuses_is_named(tmp_path, slurm):
    (slurm / "sbatch").write_text("#!/bin/bash\nexit 1\n")

    with pytest.raises(ValueError, match="^`sbatch` refused '.*/logs/.*/tasks/launch_script.slurm', see above.$"):
        run(tmp_path, ExecutorArguments("slurm", workers=2, partition="cpu", time="1:00:00"))


@pytest.fixture
def job_arguments(tmp_path):
    (tmp_path / "jobs.yaml").write_text("poll_interval: 0\nenv: {NAME: value}\n")
    return ExecutorArguments(
        "jobs",
        workers=2,
        tasks=3,
        time="2h",
        flavor="a10g-small",
        image="org/image",
        namespace="org",
        dependencies=["slam-hf"],
        executor_config=str(tmp_path / "jobs.yaml"),
    )


@pytest.fixture
def memory(request):
    """A folder that Hugging Face Jobs could reach, in the memory of this process."""
    yield f"memory://{request.node.name}"
    fsspec.filesystem("memory").rm("/", recursive=True)


def test_hugging_face_jobs_get_the_steps(hub_jobs, job_arguments, memory):
    assert run_steps(Write(memory), Close(memory), job_arguments, f"{memory}/logs") is True

    store = fsspec.filesystem("memory")
    files = [name for name in store.glob(f"{memory}/*") if store.isfile(name)]
    out = {Path(name).name: store.cat_file(name).decode() for name in files}
    assert {name: text.split()[0] for name, text in out.items()} == {"0": "3", "1": "3", "2": "3", "closed": "0"}
    assert len(hub_jobs.calls) == 4
    call = hub_jobs.calls[0]
    expected = {"timeout": "2h", "flavor": "a10g-small", "image": "org/image", "namespace": "org"}
    assert call.items() >= {**expected, "dependencies": ["slam-hf"], "token": "hf_secret"}.items()
    assert call["env"]["NAME"] == "value"
    saved = store.cat(store.glob(f"{memory}/logs/*/tasks/executor.*"))
    assert len(saved) == 2 and not any(b"hf_secret" in content for content in saved.values())


def test_hugging_face_jobs_that_fail_twice_end_the_run(hub_jobs, job_arguments, memory):
    hub_jobs.failing = {1, 2, 3}
    with pytest.raises(
        ChildProcessError, match=r"^\d of 3 tasks have failed. The log of the first is 'memory://.*log"
    ):
        run_steps(Write(memory), Close(memory), job_arguments, f"{memory}/logs")

    assert not fsspec.filesystem("memory").exists(f"{memory}/closed")


def test_hugging_face_jobs_cannot_reach_this_machine(tmp_path, job_arguments):
    with pytest.raises(ValueError, match="^Hugging Face Jobs cannot reach '.*/logs': write to hf:// or s3://.$"):
        run(tmp_path, job_arguments)


def test_without_ray_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ImportError, match=r'^Ray is missing: pip install "slam-hf\[ray\]".$'):
        run(tmp_path, ExecutorArguments("ray", workers=2))


@pytest.mark.slow
def test_ray_starts_the_tasks_of_killed_processes_and_nodes_again(tmp_path, ray_cluster, caplog):
    args = ExecutorArguments("ray", workers=2, tasks=6, cpus_per_task=1, mem_per_cpu_gb=1)

    def kill_a_node():
        while not (tmp_path / "out" / "1").exists():
            time.sleep(0.01)
        ray_cluster()

    thread = threading.Thread(target=kill_a_node)
    thread.start()
    assert run(tmp_path, args, killed_at=0) is True
    thread.join()

    out = read_out(tmp_path)
    assert out.pop("killed") == "xx"
    assert sorted(out) == ["0", "1", "2", "3", "4", "5", "closed"]
    assert os.listdir(tmp_path) == ["out"]

    with pytest.raises(ValueError, match="^The task failed.$"):
        run(tmp_path / "out", args, fails_at=2)
    assert not caplog.messages

    from slam_hf.execution.ray_cluster import RayExecutor

    RayExecutor([], 0, 1, str(tmp_path / "logs"), skip_completed=False, cpus_per_task=3).run()
    assert "No node of the Ray cluster has the resources of a task, {'CPU': 3" in caplog.text
