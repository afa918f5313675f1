import copy
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from test_judging_endpoint import completion, serve
from tiny_judges import save_recogniser, save_text_lm
from transformers import pipeline

from slam_hf.evaluation import assessments
from slam_hf.evaluation.arguments import ContinuationArguments, EvaluationArguments
from slam_hf.evaluation.continuations import continue_prompts, evaluate_continuations
from slam_hf.evaluation.prompts import RecordedPrompts
from slam_hf.evaluation.report import describe_results
from slam_hf.evaluation.tasks import TASKS
from slam_hf.judging import endpoint
from slam_hf.judging.arguments import JudgeArguments
from slam_hf.metrics.auto_bleu.auto_bleu import auto_bleu


DTYPES = ["float32", "bfloat16"]


@pytest.fixture
def workplace(checkpoint, tmp_path, recordings):
    """Folders of the models, and of three stories."""
    save_recogniser(tmp_path / "recogniser")
    save_text_lm(tmp_path / "text_lm")
    (tmp_path / "sSC").mkdir()
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    for number in (1, 2, 10):
        soundfile.write(tmp_path / "sSC" / f"{number}_correct.wav", waveform[number * 8000 :][:16000], rate)
        soundfile.write(tmp_path / "sSC" / f"{number}_incorrect.wav", waveform[:16000], rate)
    return tmp_path


def evaluate(workplace, model, task, dtype="float32", data="sSC", judge_args=None, **kwargs):
    args = EvaluationArguments(
        dtype=dtype,
        model=str(workplace / "model"),
        task=task,
        data=str(workplace / data),
        codec=str(workplace / "codec"),
        output_dir=str(workplace / "results"),
    )
    continuation_args = ContinuationArguments(
        prompt_seconds=0.5, asr_model=str(workplace / "recogniser"), text_lm=str(workplace / "text_lm"), batch_size=2
    )
    for name, value in kwargs.items():
        setattr(continuation_args, name, value)
    return evaluate_continuations(args, continuation_args, model, judge_args=judge_args)


def test_genppl_and_auto_bleu_judge_the_same_transcripts(workplace, tiny_model, monkeypatch):
    genppl = evaluate(workplace, tiny_model, "genppl")
    assert [record["prompt"] for record in genppl.records] == ["1_correct", "2_correct", "10_correct"]
    losses = [record["negative_log_likelihood"] for record in genppl.records]
    assert genppl.results["genppl"] == pytest.approx(math.exp(sum(losses) / 3))
    losses = [record["continuation_negative_log_likelihood"] for record in genppl.records]
    assert genppl.results["continuation"]["genppl"] == pytest.approx(math.exp(sum(losses) / 3))
    assert genppl.settings["generation"]["top_k"] == 25
    assert genppl.settings["text_lm"]["start_token"] == "<begin>"

    monkeypatch.setattr(tiny_model, "generate", None)  # nothing is generated again
    bleu = evaluate(workplace, tiny_model, "auto_bleu")
    transcripts = [record["transcript"] for record in genppl.records]
    assert [record["transcript"] for record in bleu.records] == transcripts
    assert bleu.results["auto_bleu"] == pytest.approx(sum(map(auto_bleu, transcripts)) / 3)
    assert bleu.results["continuation"]["num_transcripts"] == 3


def test_other_settings_are_another_evaluation(workplace, tiny_model):
    first = evaluate(workplace, tiny_model, "auto_bleu", num_prompts=1)
    second = evaluate(workplace, tiny_model, "auto_bleu", num_prompts=1, seed=5)
    assert len(first.records) == 1
    assert first.records[0]["units"] != second.records[0]["units"]


def test_continuations_in_bfloat16_are_another_evaluation(workplace, tiny_model):
    evaluations = [evaluate(workplace, copy.deepcopy(tiny_model), "auto_bleu", dtype=dtype) for dtype in DTYPES]
    assert [evaluation.settings["dtype"] for evaluation in evaluations] == DTYPES
    assert evaluations[0].model == evaluations[1].model
    assert len(list((workplace / "results" / ".journal").iterdir())) == 2
    assert [record["units"] for record in evaluations[0].records] != [
        record["units"] for record in evaluations[1].records
    ]


def test_a_tokenised_corpus_gives_prompts_too(workplace, tiny_model):
    rows = [
        {"id": "a", "units": [1, 2, 3, 4], "durations": [3, 9, 2, 10]},
        {"id": "b", "units": [9], "durations": [9]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), workplace / "stories.parquet")
    evaluation = evaluate(workplace, tiny_model, "auto_bleu", data="stories.parquet")
    found = [(record["prompt"], record["prompt_units"], record["prompt_seconds"]) for record in evaluation.records]
    assert found == [("a", [1, 2], 0.48), ("b", [9], 0.36)]
    assert evaluation.data["name"] == "stories.parquet"
    assert evaluation.results["num_transcripts"] == 2
    with pytest.raises(ValueError, match="speaker_similarity compares with the voice of a recording"):
        evaluate(workplace, tiny_model, "speaker_similarity", data="stories.parquet")


def test_a_judge_rates_what_was_heard(workplace, tiny_model, monkeypatch):
    (workplace / "question.txt").write_text("{prompt}|{continuation}")
    replies = iter(["Rating: 4", "5/5", "It is good."])

    def judge(server):
        return JudgeArguments("rating", "a-judge", server.url, str(workplace / "question.txt"), judge_parallel=1)

    with serve(lambda question: completion(next(replies, "1"))) as server:
        monkeypatch.setattr(endpoint.EndpointJudge, "check", lambda self: None)
        evaluation = evaluate(workplace, tiny_model, "llm_judge", judge_args=judge(server), seed=4)
        asked = [body["messages"][0]["content"] for _, _, body in server.requests]
        again = evaluate(workplace, tiny_model, "llm_judge", judge_args=judge(server), seed=4)
        assert len(server.requests) == 3  # nothing is asked again
    assert again.records == evaluation.records
    records = evaluation.records
    said = [f"{record['prompt_transcript']}|{record['continuation_transcript']}" for record in records]
    assert asked == [text.strip() for text in said]
    assert [record["judge_score"] for record in records] == [4.0, 5.0, None]
    assert [record["judge_problem"] for record in records] == [None, None, endpoint.NO_RATING]
    assert records[2]["judge_reply"] == "It is good."
    assert (evaluation.results["score"], evaluation.results["num_rated"]) == (4.5, 2)
    assert evaluation.results["unparsed"] == evaluation.results["unscored"] == pytest.approx(1 / 3)
    assert evaluation.results["score_interval"] == [4.0, 5.0]
    assert evaluation.settings["judge"]["model"] == {"name": "a-judge", "endpoint": True}
    assert "127.0.0.1" not in str(evaluation)
    # Without word times, the prompts end at pauses.
    assert evaluation.settings["end_at_pauses"] and {record["prompt_seconds"] for record in records} != {0.5}


def test_ratings_need_a_judge_that_rates(workplace, tiny_model, monkeypatch):
    monkeypatch.setattr(tiny_model, "generate", None)
    for judge_args in (None, JudgeArguments(judge_model="a-text-lm")):
        with pytest.raises(ValueError, match="llm_judge asks an instruct LM for ratings: add `judge rating`"):
            evaluate(workplace, tiny_model, "llm_judge", judge_args=judge_args)


def test_the_quality_of_the_continuations_is_their_mean(workplace, tiny_model, dnsmos, monkeypatch):
    evaluation = evaluate(workplace, tiny_model, "speech_quality")
    audio = [workplace / "results" / "audio" / f"{number}_correct_continuation.wav" for number in (1, 2, 10)]
    seconds = [soundfile.info(path).duration for path in audio]
    assert [record["overall"] for record in evaluation.records] == pytest.approx(seconds)
    assert evaluation.results["overall"] == pytest.approx(np.mean(seconds))
    assert evaluation.results["background"] == 3.0 and evaluation.results["background_interval"] == [3.0, 3.0]
    assert evaluation.results["num_rated"] == 3 and "continuation" not in evaluation.results
    assert evaluation.settings["quality_model"]["package"] == "speechmos"
    assert f"overall: {np.mean(seconds):.2f} [" in describe_results(evaluation)

    monkeypatch.setattr(dnsmos, "run", None)  # nothing is rated again
    for path in audio:  # and what another evaluation may have written there is not used
        path.unlink()
    assert evaluate(workplace, tiny_model, "speech_quality").records == evaluation.records


def test_the_voice_of_a_continuation_is_compared_with_that_of_the_recording(workplace, tiny_model, monkeypatch):
    heard = []

    class Encoder(SimpleNamespace):
        def similarity(self, pair, rate):
            heard.append([len(waveform) / rate for waveform in pair])
            return [0.25, None, 0.75][len(heard) - 1]

    monkeypatch.setattr(assessments, "check_model", lambda name: None)
    monkeypatch.setattr(assessments, "SpeakerEncoder", lambda name, device: Encoder(model=tiny_model))
    evaluation = evaluate(workplace, tiny_model, "speaker_similarity")
    assert [prompt for prompt, _ in heard] == [0.5] * 3
    assert [record["similarity"] for record in evaluation.records] == [0.25, None, 0.75]
    assert (evaluation.results["similarity"], evaluation.results["num_rated"]) == (0.5, 2)


def test_empty_transcripts_are_counted_and_do_not_count():
    record = {"skipped": None, "transcript": "a", "continuation_transcript": "a"}
    record |= {"negative_log_likelihood": 2.0, "continuation_negative_log_likelihood": 3.0}
    silent = record | {"continuation_transcript": "", "continuation_negative_log_likelihood": None}
    skipped = {"skipped": "3_correct: empty"}
    results = TASKS["genppl"].compute([record, silent, skipped])
    assert results["genppl"] == pytest.approx(math.exp(2.0))
    assert (results["num_transcripts"], results["num_empty"]) == (2, 0)
    assert results["continuation"]["genppl"] == pytest.approx(math.exp(3.0))
    assert (results["continuation"]["num_transcripts"], results["continuation"]["num_empty"]) == (2, 1)


def test_auto_bleu_without_nltk_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.tokenize", None)
    monkeypatch.delitem(sys.modules, "slam_hf.metrics.auto_bleu.auto_bleu")
    with pytest.raises(ImportError, match=r'Auto-BLEU needs nltk: pip install "slam-hf\[metrics\]"'):
        TASKS["auto_bleu"].compute([{"skipped": None, "transcript": "a", "continuation_transcript": "a"}])


@pytest.mark.parametrize(
    ("task", "options", "error"),
    [
        ("genppl", {"text_lm": "nowhere"}, OSError),
        ("genppl", {"start_token": "<other>"}, ValueError),
        ("auto_bleu", {}, ImportError),
    ],
)
def test_what_the_judgement_needs_is_there_before_the_work_begins(
    workplace, tiny_model, monkeypatch, task, options, error
):
    monkeypatch.setattr(tiny_model, "generate", None)
    for name in ("nltk", "nltk.tokenize"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "slam_hf.metrics.auto_bleu.auto_bleu")
    with pytest.raises(error):
        evaluate(workplace, tiny_model, task, **options)


@pytest.mark.parametrize("name", ["num_prompts", "prompt_seconds", "batch_size"])
def test_arguments_that_make_no_sense_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be positive, got -1"):
        ContinuationArguments(**{name: -1})


def test_continuations_need_audio(workplace, tiny_model):
    for path in (workplace / "sSC").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="sSC' holds no audio, which the prompts of genppl are the beginnings of"):
        evaluate(workplace, tiny_model, "genppl")


def test_an_evaluation_whose_prompts_are_all_skipped_is_an_error(workplace, tiny_model):
    for path in (workplace / "sSC").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="Every one of 3 items had to be skipped"):
        evaluate(workplace, tiny_model, "genppl")


@pytest.fixture
def speak(tiny_model, tiny_processor, tiny_codec):
    options = {"max_new_tokens": 12, "device": "cpu"}
    return pipeline("audio-to-audio", model=tiny_model, processor=tiny_processor, codec=tiny_codec, **options)


@pytest.fixture
def files(tmp_path, recordings):
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    files = {}
    for number in range(5):
        files[f"{number}_correct"] = tmp_path / f"{number}_correct.wav"
        soundfile.write(files[f"{number}_correct"], waveform[number * 16000 : number * 16000 + 32000], rate)
    return files


class Recogniser:
    """Hears in a waveform how long it is."""

    def __init__(self):
        self.batches = []

    def __call__(self, inputs, batch_size):
        self.batches.append(len(inputs))
        assert all(item["sampling_rate"] == 16000 for item in inputs)
        return [{"text": f" {len(item['raw'])} samples"} for item in inputs]


@pytest.fixture
def continue_files(speak, files, tmp_path):
    def run(recogniser=None, journal="journal", seed=7):
        arguments = ContinuationArguments(prompt_seconds=1.0, batch_size=2, seed=seed)
        folders = tmp_path / journal, tmp_path / "audio"
        return continue_prompts(RecordedPrompts(files, 1.0), speak, recogniser or Recogniser(), arguments, *folders)

    return run


def test_prompts_are_continued_written_and_transcribed(continue_files, files, tmp_path):
    records = continue_files()
    assert [record["prompt"] for record in records] == list(files)
    for record in records:
        assert record["prompt_seconds"] == 1.0
        assert 0 < len(record["prompt_units"]) <= 25
        assert 0 < len(record["units"]) <= 12
        for suffix, transcript in (("", "transcript"), ("_continuation", "continuation_transcript")):
            audio, rate = soundfile.read(tmp_path / "audio" / f"{record['prompt']}{suffix}.wav")
            assert (rate, record[transcript]) == (16000, f" {len(audio)} samples")
    whole, continuation = (records[0][name].split()[0] for name in ("transcript", "continuation_transcript"))
    assert int(whole) > int(continuation)


def test_an_interrupted_run_continues_with_the_same_samples(continue_files):
    whole = continue_files(journal="whole")

    dying = Recogniser()

    def die_at_the_second_batch(inputs, batch_size):
        if dying.batches:
            raise KeyboardInterrupt
        return dying(inputs, batch_size)

    with pytest.raises(KeyboardInterrupt):
        continue_files(die_at_the_second_batch)
    recogniser = Recogniser()
    resumed = continue_files(recogniser)
    assert recogniser.batches == [4, 2]  # of prompts 2 and 3, and of prompt 4, each whole and continuation
    assert resumed == whole


def test_seed_changes_the_continuations(continue_files):
    first = continue_files(journal="first")
    second = continue_files(journal="second", seed=100)
    assert [record["prompt_units"] for record in first] == [record["prompt_units"] for record in second]
    assert [record["units"] for record in first] != [record["units"] for record in second]


def test_an_empty_continuation_is_silent(continue_files, speak, tmp_path):
    speak._generate_kwargs["max_new_tokens"] = 1
    speak._generate_kwargs["suppress_tokens"] = [0, *range(2, 52)]  # leaves <S>
    recogniser = Recogniser()
    records = continue_files(recogniser)
    assert all(record["units"] == [] and record["continuation_transcript"] == "" for record in records)
    assert recogniser.batches == [2, 2, 1]
    assert len(soundfile.read(tmp_path / "audio" / "0_correct_continuation.wav")[0]) == 0


def test_what_cannot_be_a_prompt_is_skipped(continue_files, files):
    soundfile.write(files["1_correct"], np.zeros(639, dtype=np.float32), 16000)
    files["4_correct"].write_bytes(b"")
    records = continue_files()
    assert records[1] == {"prompt": "1_correct", "skipped": "1_correct: too short: 0.040 s"}
    assert records[4]["skipped"].startswith("4_correct: ")
    assert [record["skipped"] is None for record in records] == [True, False, True, True, False]


def test_prompt_ends_with_the_nearest_word_where_there_is_an_alignment(speak, files):
    words = [
        {"word": "was", "start_time": 0.1, "end_time": 0.8},
        {"word": "it", "start_time": 0.8, "end_time": 1.15},
        {"word": "so", "start_time": 1.2, "end_time": 1.9},
    ]
    files["0_correct"].with_suffix(".json").write_text(json.dumps({"aligned_text": words}), "utf-8-sig")
    prompts, skipped = RecordedPrompts(files, 1.0).read(list(files), speak)
    assert skipped == {}
    assert {name: prompt.seconds for name, prompt in prompts.items()} == {
        "0_correct": 1.15,
        **dict.fromkeys(list(files)[1:], 1.0),
    }


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"aligned_text": 3}', '{"aligned_text": [{"word": "a"}]}', '{"aligned_text": [{"end_time": NaN}]}'],
)
def test_word_times_that_cannot_be_read_are_named(speak, files, content):
    files["0_correct"].with_suffix(".json").write_text(content)
    with pytest.raises(ValueError, match="0_correct.json' is not a JSON object with `aligned_text`"):
        RecordedPrompts(files, 1.0).read(list(files), speak)


def test_short_recording_is_a_prompt_as_a_whole(speak, files):
    prompts, _ = RecordedPrompts(files, 5.0).read(list(files), speak)
    assert {prompt.seconds for prompt in prompts.values()} == {2.0}
