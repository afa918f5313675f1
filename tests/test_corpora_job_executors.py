"""A tokenisation by names and numbers gives the same files on every executor, whatever is killed."""

import random
import signal
import threading
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest
import soundfile
from killed_jobs import run_two_at_once, start

from slam_hf.corpora import job as job_module
from slam_hf.corpora.job import TokenizationJob
from slam_hf.encoding import resumable_job
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.execution import local
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.folders import open_folder


RATE = 16_000


@pytest.fixture
def make_job(tiny_codec, tmp_path):
    """A job for a folder or URL: eleven recordings in parts and chunks of six seconds, and two that cannot be read."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(11):
        waveform = 0.1 * np.random.default_rng(number).standard_normal(RATE + RATE * number // 2)
        soundfile.write(folder / f"{number:02d}.flac", waveform, RATE)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no audio " * 100)
    tiny_codec.save_pretrained(tmp_path / "codec")

    def make_job(output_dir, **settings):
        source = SourceArguments(str(folder), chunk_seconds=6.0)
        return TokenizationJob(source, str(tmp_path / "codec"), str(output_dir), **{"num_workers": 0, **settings})

    return make_job


@pytest.fixture
def expected(make_job, tmp_path):
    """All files of the corpus, by their names."""
    summary = make_job(tmp_path / "expected").run(ExecutorArguments())
    assert (summary.num_rows, summary.skipped) == (11, {"empty": 1, "corrupt": 1})
    return read_files(tmp_path / "expected")


def read_files(folder):
    files = open_folder(folder)
    return {name: files.cat_file(name) for name in files.find("") if name != ".lock"}


def list_chunks(folder):
    return open_folder(folder).glob(".tokenization/train/chunks/*")


@pytest.mark.parametrize("tasks", [4, 40])
def test_any_number_of_tasks_gives_the_same_files(make_job, expected, tmp_path, tasks):
    make_job(tmp_path / "units").run(ExecutorArguments(tasks=tasks))

    assert read_files(tmp_path / "units") == expected


def test_a_finished_job_is_not_started_again(make_job, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_job, "run_steps", None)

    assert make_job(tmp_path / "expected").run(ExecutorArguments()).num_rows == 11
    assert read_files(tmp_path / "expected") == expected


def test_options_and_codec_are_checked_before_the_input_is_listed(make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_job, "prepare_source", None)
    job = make_job(tmp_path / "units")

    with pytest.raises(ValueError, match="^`executor local` does not take `partition`: remove it.$"):
        job.run(ExecutorArguments(partition="gpu"))
    (tmp_path / "codec" / "config.json").unlink()
    with pytest.raises(ValueError, match="^'.*/codec' holds a model of type None"):
        job.run(ExecutorArguments())


def test_what_is_in_the_ledger_is_not_encoded_again_and_what_is_not_is(make_job, expected, tmp_path, monkeypatch):
    job = make_job(tmp_path / "units")
    encoded, fails_after = [], 3
    encode_parts = job_module.encode_parts

    def encode_and_note(source, codec, rules, ledger, rank, *arguments):
        before = set(list_chunks(tmp_path / "units"))
        encode_parts(source, codec, rules, ledger, rank, *arguments)
        encoded.append((rank, len({*list_chunks(tmp_path / "units")} - before)))
        if len(encoded) == fails_after:
            raise OSError("The machine is gone.")

    monkeypatch.setattr(job_module, "encode_parts", encode_and_note)
    with pytest.raises(OSError, match="^The machine is gone.$"):
        job.run(ExecutorArguments(tasks=3))
    assert [rank for rank, _ in encoded] == [0, 1, 2]
    assert sum(number for _, number in encoded) == 6

    # Tasks 0 and 1 had ended; the chunks of one of them are lost.
    lost = [name for name in list_chunks(tmp_path / "units") if "/000000-" in name]
    open_folder(tmp_path / "units").rm(lost)
    encoded.clear()
    fails_after = None
    job.run(ExecutorArguments(tasks=4))

    assert sum(number for _, number in encoded) == len(lost) == 1
    assert read_files(tmp_path / "units") == expected


def test_a_task_that_comes_late_does_nothing(make_job, expected, tmp_path):
    make_job(tmp_path / "expected").work(None, 0, 2)

    assert read_files(tmp_path / "expected") == expected


def test_a_task_with_other_settings_is_refused(make_job, expected, tmp_path):
    with pytest.raises(ValueError, match="rules.min_seconds: was 0.1, is now 0.5"):
        make_job(tmp_path / "expected", rules=PieceRules(min_seconds=0.5)).work(None, 0, 2)


def test_an_output_that_is_moved_away_between_tasks_ends_the_job(make_job, expected, tmp_path, monkeypatch):
    encode_parts, ended = job_module.encode_parts, []

    def encode_and_move(*arguments):
        encode_parts(*arguments)
        ended.append(1)
        if len(ended) == 2:
            (tmp_path / "units").rename(tmp_path / "moved")

    with monkeypatch.context() as patch:
        patch.setattr(job_module, "encode_parts", encode_and_move)
        with pytest.raises(FileNotFoundError, match=f"{tmp_path}/units/"):
            make_job(tmp_path / "units").run(ExecutorArguments(tasks=4))
    assert not list((tmp_path / "units").rglob("*.parquet"))
    for folder in (tmp_path / "units", tmp_path / "moved"):
        make_job(folder).run(ExecutorArguments(tasks=4))
        assert read_files(folder) == expected


def test_the_job_is_not_closed_while_a_chunk_is_missing(make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(TokenizationJob, "work", lambda job, data, rank, world_size: None)

    with pytest.raises(ValueError, match="6 of 6 parts of the input are not encoded.*Start the same command again"):
        make_job(tmp_path / "units").run(ExecutorArguments())

    assert not (tmp_path / "units" / "README.md").exists()


def test_a_job_whose_codec_has_changed_meanwhile_is_not_closed(make_job, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(TokenizationJob, "finish", lambda job, data, rank, world_size: None)
        with suppress(AttributeError):  # there is no summary
            make_job(tmp_path / "units").run(ExecutorArguments())
    chunks = list_chunks(tmp_path / "units")

    with pytest.raises(ValueError, match="codec.dtype: was 'float32', is now 'bfloat16'"):
        make_job(tmp_path / "units", dtype="bfloat16").finish(None, 0, 1)

    assert list_chunks(tmp_path / "units") == chunks != []


def test_the_output_may_be_in_an_object_store(make_job, expected, bucket_folder, caplog):
    job = make_job(bucket_folder, num_workers=1)
    job.run(ExecutorArguments(tasks=2))

    assert read_files(bucket_folder) == expected
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("slam_hf")]
    assert warnings == [f"'{bucket_folder}' cannot be locked: let no other job write to it."]
    job.run(ExecutorArguments(tasks=2))
    assert read_files(bucket_folder) == expected


def test_a_damaged_chunk_in_an_object_store_is_encoded_again(make_job, expected, bucket_folder, monkeypatch):
    job, files = make_job(bucket_folder), open_folder(bucket_folder)
    with monkeypatch.context() as patch:
        patch.setattr(TokenizationJob, "finish", None)
        with pytest.raises(TypeError):
            job.run(ExecutorArguments())
    first, second, *_ = list_chunks(bucket_folder)
    files.pipe_file(first, files.cat_file(first)[:-1])
    files.rm(second)

    job.run(ExecutorArguments())

    assert read_files(bucket_folder) == expected


def test_hugging_face_jobs_give_the_same_files(make_job, expected, bucket_folder, hub_jobs, tmp_path, monkeypatch):
    (tmp_path / "jobs.yaml").write_text("poll_interval: 0\ndependencies: [slam-hf]\n")
    args = ExecutorArguments("jobs", 2, 3, executor_config=str(tmp_path / "jobs.yaml"))
    with pytest.raises(
        ValueError, match="^Hugging Face Jobs cannot reach '.*/recordings': they need a repository or a"
    ):
        make_job(bucket_folder).run(args)
    monkeypatch.setattr(ExecutorArguments, "check_reach", lambda *paths: None)  # these run here

    make_job(bucket_folder).run(args)

    files = read_files(bucket_folder)
    assert {name: content for name, content in files.items() if "/logs/" not in name} == expected
    assert len(hub_jobs.calls) == 4


@pytest.mark.slow
@pytest.mark.attack
def test_a_ray_cluster_that_loses_a_node_gives_the_same_files(
    make_job, expected, tmp_path, ray_cluster, record_property
):
    killed_at = []

    def kill_a_node():
        while not list_chunks(tmp_path / "units"):
            time.sleep(0.01)
        killed_at.append(len(list_chunks(tmp_path / "units")))
        ray_cluster()

    thread = threading.Thread(target=kill_a_node)
    thread.start()
    args = ExecutorArguments("ray", workers=2, tasks=6, cpus_per_task=1, mem_per_cpu_gb=1)
    make_job(tmp_path / "units", num_workers=1).run(args)
    thread.join()

    assert killed_at[0] < 6
    assert read_files(tmp_path / "units") == expected
    record_property("attack", "tokenising in tasks: 1 node of a Ray cluster killed, the same bytes")


@pytest.mark.slow
@pytest.mark.attack
def test_two_jobs_in_tasks_at_once_lose_no_rows(make_job, expected, tmp_path, monkeypatch, record_property):
    monkeypatch.setattr(local, "START_METHOD", "fork")  # quickly
    random.seed(0)
    refused = 0
    for attempt in range(14):
        job = make_job(tmp_path / f"units-{attempt}")
        args = ExecutorArguments(workers=1 + attempt % 2, tasks=4)
        refused += run_two_at_once(job.run, args)

        assert read_files(job.output_dir) == expected
    assert refused >= 7
    record_property("attack", f"tokenising in tasks: 14 pairs of jobs at once, {refused} refused, 0 rows lost")


@pytest.mark.slow
@pytest.mark.attack
@pytest.mark.parametrize("victim", ["worker", "run"])
def test_killed_workers_and_runs_give_the_same_files(
    make_job, expected, tmp_path, monkeypatch, victim, record_property
):
    monkeypatch.setattr(local, "START_METHOD", "fork")  # quickly
    args = ExecutorArguments(workers=2, tasks=5)
    random.seed(0)
    kills = attempt = 0
    while kills < 20:
        attempt += 1
        job = make_job(tmp_path / f"units-{attempt}", num_workers=1)
        for _ in range(2):
            run = start(job.run, args)
            kills += kill(run, victim, job.output_dir)
            run.join(timeout=120)
            assert run.exitcode == 0 or (victim == "run" and run.exitcode == -signal.SIGKILL)
        job.run(args)

        assert read_files(job.output_dir) == expected
    assert attempt < 40
    record_property("attack", f"tokenising in tasks: {kills} {victim}s killed, {attempt} corpora, the same bytes")


def kill(run, victim, folder):
    """Kill a run or one of its workers, soon after it has some chunks, and return whether it was still running."""
    process, num_chunks = psutil.Process(run.pid), random.randint(0, 5)
    with suppress(psutil.NoSuchProcess):  # it ends meanwhile
        while run.is_alive():
            workers = [child for child in process.children() if child.cmdline() == process.cmdline()]
            if workers and len(list_chunks(folder)) >= num_chunks:
                time.sleep(random.uniform(0, 0.05))
                (random.choice(workers) if victim == "worker" else process).kill()
                return True
            time.sleep(0.002)
    return False
