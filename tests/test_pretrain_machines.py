"""Pretraining on two machines, with the commands of hub_scripts/accelerate_configs/README.md."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import launched_script
import pytest
import torch
from test_pretrain import ACCELERATE, QUICKSTART, ROOT, SCRIPT, TINY, launch, weights
from two_hosts import ADDRESSES, Host, two_hosts

from slam_hf.sharded_checkpoints import load_sharded_model


pytestmark = [pytest.mark.slow, pytest.mark.attack]

SETTINGS = [*("--max_steps", "12", "--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "4")]
SETTINGS += ["--context_length", "30", "--batch_size", "8", "--per_device_train_batch_size", "2"]
SETTINGS += ["--base_config", TINY[1].replace("0.1", "0.0"), "--resume_from_checkpoint", "latest"]


@pytest.fixture(scope="module")
def hosts():
    with two_hosts() as hosts:
        yield hosts


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Path:
    """The undisturbed run of one process."""
    folder = tmp_path_factory.mktemp("one")
    assert launch(folder, *SETTINGS) == 0
    return folder


def script_arguments(folder: Path, *arguments: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    command = [launched_script.__file__, str(SCRIPT), "--config", str(QUICKSTART)]
    return [*command, *TINY, *SETTINGS, "--output_dir", str(folder), *arguments]


def start(
    hosts: tuple[Host, Host], config: str, folder: Path, *arguments: str, disks=(None, None), **environment
) -> None:
    """Start the script on both hosts; `environment` is that of the second one."""
    for rank, (host, disk) in enumerate(zip(hosts, disks, strict=True)):
        config_file = ROOT / "hub_scripts" / "accelerate_configs" / f"{config}.yaml"
        command = [*ACCELERATE, "launch", "--config_file", str(config_file)]
        command += ["--num_machines", "2", "--machine_rank", str(rank), "--num_processes", "2"]
        command += ["--main_process_ip", ADDRESSES[0], "--main_process_port", "29500"]
        command += script_arguments(folder, *arguments)
        log = folder.parent / f"host-{rank}.log"
        host.start(command, log, disk, folder, **(environment if rank == 1 else {}))


def end(hosts: tuple[Host, Host]) -> list[int]:
    return [host.wait(timeout=280) for host in hosts]


def losses(folder: Path, step: int = 12) -> list[float]:
    state = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [log["loss"] for log in state["log_history"] if "loss" in log]


def assert_same_weights(one: Path, other: Path) -> None:
    assert weights(one).keys() == weights(other).keys()
    assert [name for name, weight in weights(one).items() if not torch.equal(weight, weights(other)[name])] == []


@pytest.mark.parametrize("config", ["ddp", "fsdp"])
def test_two_machines_train_as_one_and_continue_after_one_is_lost(
    hosts, config, one_process, tmp_path, record_property
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(hosts, config, whole)
    assert end(hosts) == [0, 0], hosts[0].log.read_text()[-5000:]
    assert losses(whole) == pytest.approx(losses(one_process), abs=1e-4)
    assert len(losses(whole)) == 12

    start(hosts, config, cut, PAUSED_AT="6")
    hosts[1].wait_for("It pauses.", timeout=280)
    hosts[1].kill()
    killed = time.monotonic()
    assert hosts[0].wait(timeout=60) == 1
    print(f"{config}: the other machine ended {time.monotonic() - killed:.1f} s later")
    assert "Error: another process of this job has ended, or its machine does not answer" in hosts[0].log.read_text()
    assert "Start the same command with --resume_from_checkpoint latest" in hosts[0].log.read_text()
    assert not (cut / "model.safetensors").exists()

    start(hosts, config, cut)
    assert end(hosts) == [0, 0], hosts[0].log.read_text()[-5000:]
    assert f"Resuming from {cut / 'checkpoint-4'}." in hosts[0].log.read_text()
    assert_same_weights(cut, whole)
    if config == "fsdp":
        sharded = load_sharded_model(whole / "checkpoint-12").state_dict()
        assert all(torch.equal(sharded[name], weight) for name, weight in weights(whole).items())
    record_property("attack", f"pretraining on two machines ({config}): one killed, the same weights")


def test_a_machine_that_is_cut_off_is_noticed_after_ddp_timeout(tmp_path, record_property):
    with two_hosts() as hosts:
        start(hosts, "ddp", tmp_path / "run", "--max_steps", "100000", "--ddp_timeout", "15")
        hosts[1].wait_for("'loss'", timeout=280)
        hosts[1].unplug()
        unplugged = time.monotonic()
        assert [host.wait(timeout=120) for host in hosts] == [1, 1]
        print(f"both ended {time.monotonic() - unplugged:.1f} s after the cable was pulled, with ddp_timeout 15")
        assert time.monotonic() - unplugged > 15
        for host in hosts:
            assert re.search(r"Error: another process of this job .*Timed out waiting 15000ms", host.log.read_text())
    record_property("attack", "pretraining on two machines: cable pulled, both end")


def test_machines_that_share_no_folder_keep_their_own_checkpoints(hosts, one_process, tmp_path):
    disks, folder = (tmp_path / "disk-0", tmp_path / "disk-1"), tmp_path / "run"
    for disk in disks:
        disk.mkdir()
    start(hosts, "ddp", folder, disks=disks)
    assert end(hosts) == [1, 1]
    for host in hosts:
        assert f"Error: Some machines do not see the output folder '{folder}': give" in host.log.read_text()

    own = ["--save_on_each_node", "True"]
    start(hosts, "ddp", folder, *own, disks=disks, PAUSED_AT="10")
    hosts[1].wait_for("It pauses.", timeout=280)
    hosts[1].kill()
    assert hosts[0].wait(timeout=60) == 1
    for disk, rank in zip(disks, "01", strict=True):
        files = {path.name for path in (disk / "checkpoint-8").iterdir()}
        assert files >= {"model.safetensors", "optimizer.pt", "trainer_state.json", f"rng_state_{rank}.pth"}
    (disks[1] / "checkpoint-8" / "optimizer.pt").write_bytes(b"")
    start(hosts, "ddp", folder, *own, disks=disks)
    assert end(hosts) == [0, 0], hosts[0].log.read_text()[-5000:]
    printed = hosts[0].log.read_text()
    assert f"Skipped: '{folder / 'checkpoint-8' / 'optimizer.pt'}' is damaged" in printed
    assert f"Resuming from {folder / 'checkpoint-4'}." in printed
    assert losses(disks[0]) == pytest.approx(losses(one_process), abs=1e-4)
    assert_same_weights(disks[0], disks[1])
    assert (disks[0] / "README.md").is_file()


SLURM = {
    "scontrol": f"""
        [ "$1" = show ] && printf '%s\\n' {" ".join(ADDRESSES)}
        [ "$1" = requeue ] && echo "$2" > "$FAKE/requeued"
        """,
    # For each machine, a task, whose process is all that gets signals.
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        rank=0
        for host in $HOSTS; do
            SLURM_NODEID=$rank ip netns exec $host "$@" &
            echo $! > "$FAKE/task-$rank"
            rank=$((rank + 1))
        done
        status=0
        for task in $(jobs -p); do wait $task || status=$?; done
        exit $status
        """,
    "scancel": 'kill "${1/--signal=/-}" $(cat "$FAKE"/task-*)',
    "accelerate": f'exec {" ".join(ACCELERATE)} "$@"',
}


def test_a_preempted_slurm_job_saves_and_continues(hosts, one_process, tmp_path, record_property):
    for name, program in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{program}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FAKE": str(tmp_path)}
    environment |= {"HOSTS": " ".join(host.name for host in hosts), "GLOO_SOCKET_IFNAME": "cable"}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[0-1]"}
    script = str(ROOT / "hub_scripts" / "accelerate_configs" / "slurm.sh")
    command = ["bash", script, "ddp", *script_arguments(tmp_path / "run"), "--save_steps", "100"]

    def submit(**more: str) -> subprocess.Popen:
        with open(tmp_path / "log", "a") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment | more, stdout=log, stderr=subprocess.STDOUT)

    job = submit(STEP_SECONDS="2", OMP_NUM_THREADS="1")
    waited = time.monotonic() + 280
    while "'loss'" not in (tmp_path / "log").read_text():
        assert time.monotonic() < waited and job.poll() is None, (tmp_path / "log").read_text()[-5000:]
        time.sleep(0.5)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=120) != 0
    assert (tmp_path / "requeued").read_text() == "7\n"
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    assert f"Stopped by SIGTERM, with a checkpoint of step {step}." in (tmp_path / "log").read_text()
    assert (checkpoint / "checksums.json").is_file()
    assert 0 < step < 12
    (tmp_path / "requeued").unlink()
    assert submit(OMP_NUM_THREADS="1").wait(timeout=280) == 0, (tmp_path / "log").read_text()[-5000:]
    assert f"Resuming from {checkpoint}." in (tmp_path / "log").read_text()
    assert not (tmp_path / "requeued").exists()
    assert losses(tmp_path / "run", 12) == pytest.approx(losses(one_process), abs=1e-4)
    record_property("attack", "Slurm job on two machines: preempted, saved and continued")
