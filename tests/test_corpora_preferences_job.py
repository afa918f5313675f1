import itertools
import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import load_dataset
from huggingface_hub import DatasetCard
from killed_jobs import read_files, run_and_die
from tiny_judges import save_instruct_lm, save_recogniser, save_text_lm

from slam_hf import HubertUnitCodec, HubertUnitTokenizer
from slam_hf.atomic_write import atomic_write
from slam_hf.corpora import dataset_folder
from slam_hf.corpora.job import tokenize_corpus
from slam_hf.corpora.preferences import job as job_module
from slam_hf.corpora.preferences.job import PreferenceJob
from slam_hf.corpora.preferences.selection import Thresholds
from slam_hf.encoding import resumable_job
from slam_hf.encoding.source_arguments import SourceArguments
from slam_hf.encoding.source_file import prepare_source
from slam_hf.execution.arguments import ExecutorArguments
from slam_hf.fingerprints import hash_model
from slam_hf.judging.arguments import JudgeArguments
from slam_hf.training.preferences import AlignArguments, load_pairs


EXECUTOR = ExecutorArguments()


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, tiny_codec, recordings):
    """Folders of the models, and of seven recordings of 2 to 3.5 seconds, a silent one and one that is not audio."""
    place = tmp_path_factory.mktemp("place")
    tiny_model.save_pretrained(place / "model")
    HubertUnitTokenizer(num_units=50).save_pretrained(place / "model")
    tiny_codec.save_pretrained(place / "codec")
    save_recogniser(place / "recogniser")
    save_text_lm(place / "text_lm")
    folder = place / "recordings"
    folder.mkdir()
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    for number in range(7):
        soundfile.write(folder / f"{number}.flac", waveform[number * rate :][: 2 * rate + number * rate // 4], rate)
    soundfile.write(folder / "silent.wav", np.zeros(rate), rate)
    (folder / "text.wav").write_text("no audio " * 100)
    return place


@pytest.fixture(scope="module")
def finished(place):
    """A job that was run, which no test changes: three continuations of each recording, in batches of two prompts."""
    job = PreferenceJob(
        SourceArguments(str(place / "recordings"), chunk_seconds=8.0),
        model=str(place / "model"),
        asr_model=str(place / "recogniser"),
        judge=JudgeArguments(judge_model=str(place / "text_lm")),
        output_dir=str(place / "pairs"),
        codec=str(place / "codec"),
        thresholds=Thresholds(max_auto_bleu=1.0),
        prompt_seconds=1.5,
        num_samples=3,
        batch_size=6,
        options={"max_new_tokens": 12},
    )
    job.run(EXECUTOR)
    return job


@pytest.fixture
def job(finished, tmp_path):
    """The same job for an empty folder."""
    return replace(finished, output_dir=str(tmp_path / "pairs"))


@pytest.fixture
def again(finished, job):
    """The same job where it is finished, in a folder of the test's own."""
    shutil.copytree(finished.output_dir, job.output_dir)
    return job


def read_candidates(job) -> list[dict]:
    return pq.read_table(Path(job.output_dir) / "candidates").to_pylist()


def test_a_model_gets_pairs_of_its_own_continuations(finished, tmp_path, tiny_model):
    summary = finished.read_summary()
    candidates = read_candidates(finished)
    assert [row["id"] for row in candidates] == [f"{number}.flac" for number in range(7)]
    assert all(len(row["continuations"]) == 3 for row in candidates)
    judged = [item for row in candidates for item in row["continuations"] if item["score"] is not None]
    assert summary.made["continuations"]["judged"] == len(judged) > 10
    pairs = load_dataset(finished.output_dir, split="train", cache_dir=str(tmp_path / "cache")).to_list()
    assert len(pairs) == summary.num_rows and summary.num_rows + sum(summary.skipped.values()) == 9
    assert summary.skipped["silent"] == summary.skipped["corrupt"] == 1
    by_id = {row["id"]: row for row in candidates}
    for pair in pairs:
        row = by_id[pair["id"]]
        assert (pair["prompt"], pair["prompt_text"]) == (row["prompt"], row["prompt_text"])
        scored = sorted(
            (item for item in row["continuations"] if item["score"] is not None), key=lambda item: item["score"]
        )
        for name, item in (("chosen", scored[-1]), ("rejected", scored[0])):
            expected = {"": item["units"], "_text": item["text"], "_score": item["score"]}
            assert {key: pair[f"{name}{key}"] for key in expected} == expected
    made = summary.made
    assert made["model"]["weights"] == hash_model(tiny_model)
    assert made["codec"]["num_units"] == 50 and made["judge"]["judge"] == "perplexity"
    assert (made["seed"], made["num_samples"], made["generation"]["max_new_tokens"]) == (0, 3, 12)
    assert made["thresholds"]["max_auto_bleu"] == 1.0 and "torch" in made["packages"]
    card = DatasetCard.load(Path(finished.output_dir) / "README.md")
    assert card.data.num_units == 50 and json.dumps(made, indent=2) in card.content
    assert str(Path(finished.output_dir).parent) not in card.content


def test_alignment_takes_the_pairs_unchanged(finished):
    train, test = load_pairs(AlignArguments(dataset_name=finished.output_dir), 50)
    assert len(train) + len(test) == finished.read_summary().num_rows
    assert set(train.column_names) == {"prompt", "chosen", "rejected"}
    assert all(value.startswith("<Un") for value in train[0].values())


def test_pairs_do_not_depend_on_the_number_of_tasks(finished, job):
    job.run(ExecutorArguments(tasks=3))
    assert read_files(job.output_dir) == read_files(finished.output_dir)


def test_pairs_do_not_depend_on_the_size_of_batches(finished, job):
    batches = replace(job, batch_size=3)
    batches.run(EXECUTOR)
    for row, other in zip(read_candidates(finished), read_candidates(batches), strict=True):
        for item, again in zip(row.pop("continuations"), other.pop("continuations"), strict=True):
            assert item.pop("score") == pytest.approx(again.pop("score"), rel=1e-5)
            assert item == again
        assert row == other


def test_a_job_that_is_killed_gives_the_same_bytes(finished, job):
    for chunks in (1, 2):
        run_and_die(job, chunks)
    assert len(list(Path(job.output_dir).glob(".preferences/*/chunks/*.parquet"))) == 3
    job.run(EXECUTOR)
    assert read_files(job.output_dir) == read_files(finished.output_dir)


@pytest.mark.slow
def test_a_closing_step_that_is_killed_before_any_file_gives_the_same_bytes(finished, job, monkeypatch):
    write, expected = atomic_write, read_files(finished.output_dir)
    for number in itertools.count():
        written, closing = [], replace(job, output_dir=f"{job.output_dir}-{number}")

        def write_or_die(path, content, written=written, number=number):
            if len(written) == number:
                raise KeyboardInterrupt
            written.append(path)
            write(path, content)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            for module in (job_module, dataset_folder):
                patch.setattr(module, "atomic_write", write_or_die)
            closing.run(EXECUTOR)
        closing.run(EXECUTOR)
        assert read_files(closing.output_dir) == expected
        if len(written) < number:
            break
    assert number > 5


def test_other_thresholds_choose_again_among_the_same_continuations(finished, again, tmp_path, monkeypatch):
    first, candidates = finished.read_summary(), read_candidates(finished)
    monkeypatch.setattr(resumable_job, "run_steps", None)  # nothing is generated again

    levels = sorted(
        max(scores)
        for row in candidates
        if len(scores := [item["score"] for item in row["continuations"] if item["score"] is not None]) > 1
    )
    stricter = replace(again, thresholds=replace(again.thresholds, min_score=levels[-2]))
    second = stricter.run(EXECUTOR)
    assert (second.num_rows, second.skipped["no continuation good enough"]) == (2, len(levels) - 2)
    assert first.num_rows == len(levels)
    assert read_candidates(again) == candidates
    pairs = load_dataset(again.output_dir, split="train", cache_dir=str(tmp_path / "cache"))
    assert min(pairs["chosen_score"]) == levels[-2]
    with pytest.raises(ValueError, match="No pair could be made: .* × no continuation good enough.* other thresholds"):
        replace(again, thresholds=replace(again.thresholds, min_score=0.0)).run(EXECUTOR)
    assert not Path(again.output_dir, "data", "train-00000-of-00001.parquet").exists()
    assert stricter.run(EXECUTOR) == second
    assert again.run(EXECUTOR) == first
    assert read_files(again.output_dir) == read_files(finished.output_dir)


def test_other_settings_are_another_job(again):
    with pytest.raises(ValueError, match="preference pairs that was begun with other settings(.|\n)*seed: was 0"):
        replace(again, seed=1).run(EXECUTOR)


def test_seeds_give_other_continuations_of_the_same_prompts(finished, job):
    replace(job, num_prompts=2, seed=1).run(EXECUTOR)
    rows = list(zip(read_candidates(finished)[:2], read_candidates(job), strict=True))
    for one, two in rows:
        assert one["prompt"] == two["prompt"]
        units = [{item["units"] for item in row["continuations"]} for row in (one, two)]
        assert len(units[0]) == len(units[1]) == 3 and not units[0] & units[1]


def test_prompts_may_be_the_units_of_a_tokenised_corpus(job, tmp_path, tiny_codec):
    source = prepare_source(tmp_path / "source.parquet", job.source)
    tokenize_corpus(source, tiny_codec, tmp_path / "units", num_workers=0)
    corpus = load_dataset(str(tmp_path / "units"), split="train", cache_dir=str(tmp_path / "cache")).to_list()

    of_units = replace(job, source=SourceArguments(str(tmp_path / "units"), layout="units"))
    summary = of_units.run(EXECUTOR)

    candidates = read_candidates(of_units)
    assert [row["id"] for row in candidates] == [row["id"] for row in corpus]
    for row, whole in zip(candidates, corpus, strict=True):
        units = "".join(f"<Un{unit}>" for unit in whole["units"])
        assert units.startswith(row["prompt"]) and 0 < row["prompt_seconds"] <= 1.5
    assert summary.num_rows > 0


def test_units_of_another_codec_are_refused(job, tmp_path):
    other = HubertUnitCodec.from_pretrained(job.codec)
    other.encoder.feature_projection.projection.weight.data.mul_(1.5)
    source = prepare_source(tmp_path / "source.parquet", job.source)
    tokenize_corpus(source, other, tmp_path / "units", num_workers=0)
    of_units = replace(job, source=SourceArguments(str(tmp_path / "units"), layout="units"))
    with pytest.raises(ValueError, match="units' are of another codec than the model's"):
        of_units.run(EXECUTOR)


def test_the_audio_is_kept_where_it_is_wanted(finished, job):
    kept = replace(job, save_audio=True, num_prompts=2)
    kept.run(EXECUTOR)
    rows = read_candidates(kept)
    for row in rows:
        folder = Path(kept.output_dir) / "audio" / "train" / row["audio"]
        assert sorted(path.name for path in folder.iterdir()) == ["0.flac", "1.flac", "2.flac", "prompt.flac"]
        assert soundfile.info(folder / "prompt.flac").duration == pytest.approx(row["prompt_seconds"])
        for number, item in enumerate(row["continuations"]):
            assert soundfile.info(folder / f"{number}.flac").frames == round(item["seconds"] * 16_000)
    assert [row | {"audio": None} for row in rows] == read_candidates(finished)[:2]


@pytest.mark.parametrize(
    ("reply", "reason", "detail"),
    [
        ("4", "equally good continuations", "4, 4, 4"),
        ("x", "no two continuations with a score", ", ".join(["no rating in the reply"] * 3)),
    ],
)
def test_replies_are_counted_and_not_guessed(job, tmp_path, reply, reason, detail):
    save_instruct_lm(tmp_path / "instruct", reply)
    (tmp_path / "prompt.txt").write_text("{prompt}|{continuation}")
    judge = JudgeArguments(
        judge="rating",
        judge_model=str(tmp_path / "instruct"),
        judge_prompt=str(tmp_path / "prompt.txt"),
        judge_reply_tokens=1,
    )
    with pytest.raises(ValueError, match=f"No pair could be made: .*2 × {reason}"):
        replace(job, judge=judge, num_prompts=2).run(EXECUTOR)
    report = Path(job.output_dir, "skipped", "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["detail"] for line in report] == [detail] * 2
    assert not Path(job.output_dir, "data").exists()


@pytest.mark.parametrize("name", ["candidates", "data"])
def test_a_file_that_was_changed_is_named(again, name):
    path = Path(again.output_dir) / name / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=f"{name}/train-00000-of-00001.parquet' is not as the job wrote it"):
        again.run(EXECUTOR)


def test_files_that_no_such_job_has_written_are_not_replaced(job):
    folder = Path(job.output_dir) / "data"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files that no choice of pairs of 'train' has written"):
        job.run(EXECUTOR)


def test_auto_bleu_without_nltk_names_the_extra(job, monkeypatch):
    monkeypatch.setattr(job_module, "find_spec", lambda name: None)
    job_module._load_models.cache_clear()
    with pytest.raises(ImportError, match=r'needs NLTK: pip install "slam-hf\[metrics\]"'):
        job.run(EXECUTOR)


def test_what_is_missing_is_named_before_the_input_is_listed(job, monkeypatch):
    monkeypatch.setattr(resumable_job, "prepare_source", None)
    for name in ("model", "asr_model"):
        with pytest.raises(OSError, match="nowhere"):
            replace(job, **{name: f"{job.output_dir}/nowhere"}).run(EXECUTOR)
