import json
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import load_dataset
from huggingface_hub import DatasetCard
from killed_jobs import read_files, run_and_die, run_two_at_once, start
from test_corpora_alignment_aligners import make_model, save_tiny_ctc
from test_corpora_job import DAMAGES

from slam_hf.corpora.alignment import recordings as recordings_module
from slam_hf.corpora.alignment.job import AlignmentJob
from slam_hf.corpora.alignment.recordings import align_parts
from slam_hf.corpora.job import tokenize_corpus
from slam_hf.encoding.ledger import ChunkKey, Ledger, PendingPart
from slam_hf.encoding.manifest import read_manifest
from slam_hf.encoding.reading import PieceRules
from slam_hf.encoding.recordings import Recording
from slam_hf.encoding.segmentation import Segmentation
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.encoding.source_file import prepare_source
from slam_hf.encoding.sources import file_source
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.folders import open_folder
from slam_hf.remote_files import AudioDownloadError


TEXTS = {
    "a/1.wav": "The old man sat down.",
    "a/2.wav": "It rained - all day",
    "b/digits.wav": "In 1984 it rained",
    "b/long.wav": "one two three four five six",
    "b/none.wav": None,
    "b/short.wav": "far too many words for a tenth of a second and a half",
}


@pytest.fixture
def recordings(tmp_path):
    """A manifest of six recordings of 1 to 7 seconds; one file is missing, one is silent, and one is not audio."""
    lines = []
    for seed, (path, text) in enumerate(TEXTS.items()):
        seconds = {"b/long.wav": 7.0, "b/short.wav": 0.15}.get(path, 1.0 + seed / 4)
        (tmp_path / "audio" / path).parent.mkdir(parents=True, exist_ok=True)
        samples = 0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))
        soundfile.write(tmp_path / "audio" / path, samples, 16_000)
        lines.append({"path": path, "text": text})
    soundfile.write(tmp_path / "audio" / "silent.wav", np.zeros(16_000), 16_000)
    (tmp_path / "audio" / "damaged.wav").write_text("no audio " * 100)
    lines += [{"path": path, "text": "Words"} for path in ("silent.wav", "damaged.wav", "missing.wav")]
    lines.append({"path": "a/1.wav", "text": "sat", "offset": 0.25, "duration": 0.5, "id": "excerpt"})
    manifest = tmp_path / "audio" / "list.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


@pytest.fixture
def ctc_model(tmp_path):
    return save_tiny_ctc(tmp_path / "ctc")


@pytest.fixture
def job(recordings, ctc_model, tmp_path):
    source = SourceArguments(str(recordings), layout="manifest", chunk_seconds=2.0)
    return AlignmentJob(source, str(tmp_path / "words"), ctc_model=ctc_model)


EXECUTOR = ExecutorArguments(workers=1)


def read_result(job) -> dict[str, bytes]:
    """The content of each file of a result, without the state of the job."""
    return {name: content for name, content in read_files(job.output_dir).items() if not name.startswith(".")}


def test_recordings_get_their_words_and_the_others_a_reason(job, recordings):
    summary = job.run(EXECUTOR)
    assert (summary.num_rows, summary.num_aligned) == (10, 4)
    assert summary.unaligned == {
        "unreadable": 1,
        "corrupt": 1,
        "characters unknown": 1,
        "no text": 1,
        "too short for its text": 1,
        "silent": 1,
    }
    report = [json.loads(line) for line in (Path(job.output_dir) / "unaligned.jsonl").read_text().splitlines()]
    assert {item["id"]: item["reason"] for item in report} == {
        "b/digits.wav": "characters unknown",
        "b/none.wav": "no text",
        "b/short.wav": "too short for its text",
        "silent.wav": "silent",
        "damaged.wav": "corrupt",
        "missing.wav": "unreadable",
    }
    before = read_manifest(recordings)
    after = read_manifest(f"{job.output_dir}/manifest.jsonl", root=recordings.parent)
    assert [replace(recording, aligned_text=None) for recording in after] == before
    words = {recording.id: recording.aligned_text for recording in after}
    assert [word["word"] for word in words["a/2.wav"]] == ["It", " rained -", " all", " day"]
    assert words["b/digits.wav"] is words["silent.wav"] is None
    ends = [word["end_time"] for word in words["excerpt"]]
    assert len(ends) == 1 and 0 < ends[0] <= 0.5


def test_a_corpus_gets_the_words_that_it_would_have_from_the_manifest(job, recordings, tiny_codec, tmp_path):
    rules = PieceRules(Segmentation(max_seconds=3.0, cut="fixed"))
    tokenize_corpus(
        prepare_source(tmp_path / "source.parquet", job.source),
        tiny_codec,
        tmp_path / "units",
        rules=rules,
        num_workers=0,
    )
    job.run(EXECUTOR)
    words = SourceArguments(f"{job.output_dir}/manifest.jsonl", layout="manifest", audio_root=str(recordings.parent))
    tokenize_corpus(
        prepare_source(tmp_path / "words.parquet", words),
        tiny_codec,
        tmp_path / "expected",
        rules=rules,
        num_workers=0,
    )

    of_corpus = replace(job, corpus=str(tmp_path / "units"), output_dir=str(tmp_path / "aligned"))
    summary = of_corpus.run(EXECUTOR)

    aligned = load_dataset(of_corpus.output_dir, split="train", cache_dir=str(tmp_path / "cache")).to_list()
    expected = load_dataset(str(tmp_path / "expected"), split="train", cache_dir=str(tmp_path / "cache")).to_list()
    pieces = [row["id"] for row in aligned if "b/long" in row["id"]]
    assert pieces == ["b/long.wav#t=0,3", "b/long.wav#t=3,6", "b/long.wav#t=6"]
    for row, other in zip(aligned, expected, strict=True):
        assert {**row, "text": None, "aligned_text": None} == {**other, "text": None, "aligned_text": None}
        if "#t=" not in row["id"]:
            assert (row["text"], row["aligned_text"]) == (other["text"], other["aligned_text"])
        elif row["aligned_text"] is not None:
            assert row["text"] == "".join(word["word"] for word in row["aligned_text"])
            assert [word["word"].strip() for word in row["aligned_text"]] == [
                word["word"].strip() for word in other["aligned_text"]
            ]
            assert not row["text"].startswith(" ")
            times = [time for word in row["aligned_text"] for time in (word["start_time"], word["end_time"])]
            assert min(times) >= 0 and max(times) <= row["num_frames"] / 25
    assert "".join(f" {row['text']}" for row in aligned if "b/long" in row["id"] and row["text"]) == (
        " one two three four five six"
    )
    assert summary.num_rows == len(aligned) == summary.num_aligned + sum(summary.unaligned.values())
    sizes = [DatasetCard.load(tmp_path / name / "README.md").data.dataset_info for name in ("units", "aligned")]
    assert [size["splits"][0]["num_examples"] for size in sizes] == [9, 9]
    assert sizes[0]["dataset_size"] < sizes[1]["dataset_size"] == sizes[1]["splits"][0]["num_bytes"]


def test_a_row_whose_recording_is_not_in_the_source_is_counted(job, recordings, tiny_codec, tmp_path):
    tokenize_corpus(
        prepare_source(tmp_path / "source.parquet", job.source), tiny_codec, tmp_path / "units", num_workers=0
    )
    recordings.write_text("".join(recordings.read_text().splitlines(keepends=True)[1:]))
    summary = replace(job, corpus=str(tmp_path / "units")).run(EXECUTOR)
    assert summary.unaligned["audio missing"] == 1
    report = (Path(job.output_dir) / "unaligned" / "train.jsonl").read_text()
    assert json.loads(report.splitlines()[0])["id"] == "a/1.wav"


def test_a_full_chunk_is_kept_when_the_next_recording_ends_the_process(recordings, tmp_path, monkeypatch):
    source = replace(file_source(read_manifest(recordings)), chunk_seconds=1.0)
    ledger, aligned = Ledger(tmp_path / "chunks"), []

    def align(recording, aligners):
        aligned.append(recording)
        if len(aligned) == 3:
            raise MemoryError
        return recordings_module._Aligned(None, None, 1.0)

    monkeypatch.setattr(recordings_module, "_align", align)
    with pytest.raises(MemoryError):
        align_parts(source, None, ledger)
    assert ledger.pending(source.parts) == [PendingPart(ChunkKey(0, 2), first_row=2)]


def test_a_job_that_is_killed_gives_the_same_bytes_and_so_do_more_tasks(job, tmp_path):
    job.run(EXECUTOR)
    killed = replace(job, output_dir=str(tmp_path / "killed"))
    for chunks in (1, 2):
        run_and_die(killed, chunks)
    written = list(Path(killed.output_dir).glob(".alignment/*/chunks/*.parquet"))
    assert len(written) == 3 and not (tmp_path / "killed" / "manifest.jsonl").exists()
    killed.run(replace(EXECUTOR, tasks=3))
    assert read_result(killed) == read_result(job)
    assert not list(Path(killed.output_dir).glob(".alignment/*/chunks"))
    assert killed.run(EXECUTOR) == job.read_summary()


@pytest.fixture
def of_corpus(job, tiny_codec, tmp_path):
    """The same job for a corpus of the recordings."""
    source = prepare_source(tmp_path / "source.parquet", job.source)
    tokenize_corpus(source, tiny_codec, tmp_path / "units", num_workers=0)
    return replace(job, corpus=str(tmp_path / "units"), output_dir=str(tmp_path / "aligned"))


def test_a_finished_alignment_is_checked(job, of_corpus):
    for finished, name in ((job, "manifest.jsonl"), (of_corpus, "data/train-00000-of-00001.parquet")):
        summary = finished.run(EXECUTOR)
        assert finished.run(EXECUTOR) == summary
        (Path(finished.output_dir) / name).unlink()
        with pytest.raises(ValueError, match=f"'{finished.output_dir}/{name}' is not as the job wrote it. Remove it"):
            finished.run(EXECUTOR)


def test_what_other_machines_cannot_read_is_refused(job, ctc_model):
    args = ExecutorArguments("jobs", 1, dependencies=["slam-hf"])
    with pytest.raises(ValueError, match="Hugging Face Jobs cannot reach '.*list.jsonl': they need a repository"):
        job.run(args)
    with pytest.raises(ValueError, match=f"Hugging Face Jobs cannot reach '{ctc_model}': they need a repository"):
        replace(job, source=SourceArguments("s3://bucket/list.jsonl", layout="manifest")).run(args)


def test_a_damaged_corpus_is_found_before_the_work(of_corpus, monkeypatch):
    shard = next(Path(of_corpus.corpus).glob("data/*.parquet"))
    content = bytearray(shard.read_bytes())
    content[150] ^= 1
    shard.write_bytes(content)
    monkeypatch.setattr("slam_hf.corpora.alignment.job.align_parts", None)
    with pytest.raises(ValueError, match=f"'{shard}' is damaged: "):
        of_corpus.run(EXECUTOR)
    pq.write_table(pa.table({"units": [[1]]}), shard)
    with pytest.raises(ValueError, match=f"'{shard}' is not a file of a tokenised corpus: it has no column `id`."):
        replace(of_corpus, output_dir=f"{of_corpus.output_dir}-2").run(EXECUTOR)


def test_a_server_that_refuses_stops_the_job(job, recordings, monkeypatch):
    monkeypatch.setattr("slam_hf.remote_files.DOWNLOAD_WAITS", (0.0,))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    recordings.write_text(json.dumps({"path": "http://127.0.0.1:1/a.wav", "text": "Words"}) + "\n")
    with pytest.raises(AudioDownloadError, match="127.0.0.1:1/a.wav.* in 2 tries"):
        job.run(EXECUTOR)


@pytest.mark.slow
@pytest.mark.attack
def test_an_alignment_that_is_killed_at_random_gives_the_same_words(job, of_corpus, tmp_path, record_property):
    random.seed(0)
    kills = attempt = 0
    while kills < 16:
        attempt += 1
        for whole in (job, of_corpus):
            started = time.monotonic()
            whole.run(EXECUTOR)
            seconds = time.monotonic() - started
            killed = replace(whole, output_dir=str(tmp_path / f"killed-{attempt}" / Path(whole.output_dir).name))
            for _ in range(2):
                process = start(killed.run, EXECUTOR)
                process.join(timeout=random.uniform(0, max(seconds, 0.5)))
                process.kill()
                process.join()
                kills += process.exitcode == -signal.SIGKILL
            killed.run(EXECUTOR)
            assert read_result(killed) == read_result(whole)
    assert attempt < 20
    record_property(
        "attack", f"alignment: {kills} runs killed at random moments, {2 * attempt} results, the same bytes"
    )


@pytest.mark.slow
@pytest.mark.attack
def test_two_alignments_at_once_lose_no_words(job, of_corpus, tmp_path, record_property):
    random.seed(0)
    refused = 0
    for attempt in range(14):
        whole = (job, of_corpus)[attempt % 2]
        whole.run(EXECUTOR)
        twice = replace(whole, output_dir=str(tmp_path / f"twice-{attempt}"))
        refused += run_two_at_once(twice.run, EXECUTOR)
        assert read_result(twice) == read_result(whole)
    assert refused >= 7
    record_property("attack", f"alignment: 14 pairs of jobs at once, {refused} refused, 0 words lost")


@pytest.mark.slow
@pytest.mark.attack
@pytest.mark.parametrize("is_finished", [False, True])
def test_no_damage_to_an_alignment_loses_words(job, of_corpus, tmp_path, is_finished, record_property):
    outcomes = Counter()
    for whole in (job, of_corpus):
        whole.run(EXECUTOR)
        before, damaged = tmp_path / "before", replace(whole, output_dir=str(tmp_path / "damaged"))
        if is_finished:
            shutil.copytree(whole.output_dir, before)
        else:
            run_and_die(replace(whole, output_dir=str(before)), 3)
        for path in sorted(path for path in before.rglob("*") if path.is_file() and path.name != ".lock"):
            name = path.relative_to(before)
            for damage in DAMAGES:
                shutil.copytree(before, damaged.output_dir)
                content = damage(path.read_bytes())
                target = Path(damaged.output_dir) / name
                target.unlink() if content is None else target.write_bytes(content)
                try:
                    damaged.run(EXECUTOR)
                    outcomes["mended"] += 1
                    assert read_result(damaged) == read_result(whole), name
                except ValueError as error:
                    outcomes["refused"] += 1
                    assert name.name in str(error)
                shutil.rmtree(damaged.output_dir)
        shutil.rmtree(before)
    assert outcomes.total() >= 30
    kind = "finished" if is_finished else "begun"
    figures = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    record_property("attack", f"alignment: {outcomes.total()} damaged states of {kind} jobs, {figures}, 0 words lost")


@pytest.mark.slow
def test_processes_of_this_machine_share_the_work(job, tmp_path):
    job.run(EXECUTOR)
    shared = replace(job, output_dir=str(tmp_path / "shared"))
    shared.run(ExecutorArguments(workers=2, tasks=3))
    assert read_result(shared) == read_result(job)


def test_the_result_may_be_in_an_object_store(job, bucket_folder, tiny_codec, tmp_path):
    tokenize_corpus(
        prepare_source(tmp_path / "source.parquet", job.source), tiny_codec, tmp_path / "units", num_workers=0
    )
    of_corpus = replace(job, corpus=str(tmp_path / "units"))
    for local in (job, replace(of_corpus, output_dir=str(tmp_path / "aligned"))):
        remote = replace(local, output_dir=f"{bucket_folder}/{Path(local.output_dir).name}")
        assert remote.run(EXECUTOR) == local.run(EXECUTOR)
        files = open_folder(remote.output_dir)
        names = [name for name in files.find("") if not name.startswith(".")]
        assert {name: files.cat_file(name) for name in names} == read_result(local)


def test_closing_a_job_twice_changes_nothing(job):
    job.run(EXECUTOR)
    before = read_result(job)
    job.finish(None, 0, 1)
    assert read_result(job) == before


def test_the_recordings_and_models_of_a_job_may_not_change(job, recordings, ctc_model):
    job.run(EXECUTOR)
    with pytest.raises(ValueError, match="language: was None, is now 'fr'"):
        replace(job, language="fr").run(EXECUTOR)
    model = make_model(32)
    model.lm_head.weight.data[0, 0] += 1
    model.save_pretrained(ctc_model)
    with pytest.raises(ValueError, match="holds an alignment that was begun with other settings"):
        replace(job, ctc_model=shutil.copytree(ctc_model, f"{ctc_model}-2")).run(EXECUTOR)
    recordings.write_text(recordings.read_text().replace("The old man", "The young man"))
    with pytest.raises(ValueError, match="was written for another input"):
        job.run(EXECUTOR)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ctc_model": None}, "Pass `ctc_model` for recordings with a text"),
        ({"source": SourceArguments("x", layout="preference_pairs")}, "preference pairs cannot be aligned"),
        ({"source": SourceArguments("x", layout="webdataset")}, "inside of others. Tokenise them first"),
        ({"corpus": "/nowhere"}, "'/nowhere' has no split 'train'"),
    ],
)
def test_what_cannot_be_aligned_is_refused_before_anything_is_written(job, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(job, **changes).run(EXECUTOR)
    assert not Path(job.output_dir).exists()


def test_files_that_no_alignment_has_written_are_not_replaced(job):
    Path(job.output_dir).mkdir()
    (Path(job.output_dir) / "manifest.jsonl").write_text("mine")
    with pytest.raises(FileExistsError, match="manifest.jsonl"):
        job.run(EXECUTOR)
    assert (Path(job.output_dir) / "manifest.jsonl").read_text() == "mine"


def test_a_manifest_without_words_is_a_list_of_recordings(job, recordings):
    recordings.write_text(json.dumps({"path": "b/none.wav"}) + "\n")
    summary = job.run(EXECUTOR)
    assert summary.unaligned == {"no text": 1}
    (recording,) = read_manifest(f"{job.output_dir}/manifest.jsonl", root=recordings.parent)
    assert recording == Recording("b/none.wav", str(recordings.parent / "b" / "none.wav"))
