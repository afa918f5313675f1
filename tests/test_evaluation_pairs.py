import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from transformers import EncodecFeatureExtractor

from slam_hf import (
    HubertUnitTokenizer,
    SpeechLMConfig,
    SpeechLMForCausalLM,
    SpeechLMProcessor,
)
from slam_hf.corpora.schema import UNIT_CORPUS_FEATURES
from slam_hf.evaluation.arguments import EvaluationArguments
from slam_hf.evaluation.pairs import check_benchmark, evaluate_pairs
from slam_hf.evaluation.report import save_evaluation
from slam_hf.evaluation.tasks import TASKS


@pytest.fixture
def stories(tmp_path, recordings):
    folder = tmp_path / "sSC"
    folder.mkdir()
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    for number, (start, correct, incorrect) in enumerate(
        [(0, 30000, 25000), (40000, 22000, 40000), (90000, 16000, 17000)]
    ):
        soundfile.write(folder / f"{number}_correct.wav", waveform[start : start + correct], rate)
        soundfile.write(folder / f"{number}_incorrect.wav", waveform[start + 8000 : start + 8000 + incorrect], rate)
    return folder


def arguments(checkpoint, data, task="sstorycloze", **kwargs):
    return EvaluationArguments(
        model=str(checkpoint / "model"),
        task=task,
        data=str(data),
        codec=str(checkpoint / "codec"),
        output_dir=str(checkpoint / "results"),
        cache_dir=str(checkpoint / "cache"),
        num_workers=0,
        **kwargs,
    )


def write_units(folder, units: dict[str, list[int]]) -> None:
    folder.mkdir(exist_ok=True)
    rows = [
        {"id": name, "units": row, "durations": [1] * len(row), "num_frames": len(row)} for name, row in units.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=UNIT_CORPUS_FEATURES.arrow_schema), folder / "units.parquet")


def units_and_score(path, codec, model) -> tuple[int, float]:
    waveform, _ = soundfile.read(path, dtype="float32")
    units, _ = codec.deduplicate(codec.encode(torch.from_numpy(waveform)[None]).audio_codes[0, 0])
    return len(units), model.log_likelihood(torch.tensor([[1, *(units + 2), 1]])).item()


def test_records_hold_what_each_file_gives_alone(checkpoint, stories, tiny_model, tiny_codec):
    evaluation = evaluate_pairs(arguments(checkpoint, stories), tiny_model)
    assert [record["correct"] for record in evaluation.records] == ["0_correct", "1_correct", "2_correct"]
    for record in evaluation.records:
        for side in ("correct", "incorrect"):
            length, score = units_and_score(stories / f"{record[side]}.wav", tiny_codec, tiny_model)
            assert record[f"{side}_units"] == length
            assert record[f"{side}_score"] == pytest.approx(score, abs=1e-5)
        assert record["skipped"] is None
    right = np.mean([record["correct_score"] > record["incorrect_score"] for record in evaluation.records])
    assert evaluation.results["accuracy"] == pytest.approx(right)
    assert evaluation.results["num_pairs"] == 3


def test_scores_can_be_sums_of_log_likelihoods(checkpoint, stories, tiny_model):
    mean = evaluate_pairs(arguments(checkpoint, stories), tiny_model).records[0]
    total = evaluate_pairs(arguments(checkpoint, stories, reduction="sum"), tiny_model).records[0]
    assert total["correct_score"] == pytest.approx(mean["correct_score"] * (mean["correct_units"] + 1), rel=1e-5)


def test_tokenised_folder_gives_the_same_without_a_codec(checkpoint, stories, tiny_model, tiny_codec, tmp_path):
    from_audio = evaluate_pairs(arguments(checkpoint, stories), tiny_model)
    units = {}
    for path in stories.iterdir():
        waveform, _ = soundfile.read(path, dtype="float32")
        codes = tiny_codec.encode(torch.from_numpy(waveform)[None]).audio_codes[0, 0]
        units[path.name] = tiny_codec.deduplicate(codes)[0].tolist()
    write_units(tmp_path / "units", units)
    args = arguments(checkpoint, tmp_path / "units")
    args.codec = None
    from_units = evaluate_pairs(args, tiny_model)
    assert from_units.records == from_audio.records
    assert from_units.codec is None


def test_the_pair_of_a_skipped_utterance_does_not_count(checkpoint, stories, tiny_model):
    soundfile.write(stories / "1_incorrect.wav", np.zeros(100, dtype=np.float32), 16000)
    evaluation = evaluate_pairs(arguments(checkpoint, stories), tiny_model)
    summary = json.loads(save_evaluation(evaluation, checkpoint / "results", num_parameters=10).read_text())
    assert evaluation.results["num_pairs"] == 2
    assert evaluation.records[1]["skipped"] == "1_incorrect: too short: 0.006 s"
    assert evaluation.records[1]["correct_score"] is None
    assert (summary["num_items"], summary["num_skipped"]) == (3, 1)


def test_a_benchmark_whose_pairs_are_all_skipped_is_an_error(checkpoint, tiny_model, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    for name in ("1_correct.wav", "1_incorrect.wav"):
        (folder / name).touch()
    with pytest.raises(ValueError, match=r"Every one of 1 items had to be skipped: \['1_correct: empty"):
        evaluate_pairs(arguments(checkpoint, folder), tiny_model)


def test_units_of_another_codec_are_refused(checkpoint, tiny_model, tmp_path):
    write_units(tmp_path / "units", {"1_correct": [3, 50], "1_incorrect": [3]})
    with pytest.raises(ValueError, match=r"'1_correct' has the unit 50, but the model only knows 0 to 49"):
        evaluate_pairs(arguments(checkpoint, tmp_path / "units"), tiny_model)


def test_codec_of_another_size_is_refused(checkpoint, stories, published_checkpoint, tiny_model):
    args = arguments(checkpoint, stories)
    args.model = str(published_checkpoint)
    with pytest.raises(ValueError, match="The codec.* has 50 units and the model 500"):
        evaluate_pairs(args, tiny_model)


def test_an_utterance_that_is_longer_than_the_positions_of_the_model_is_skipped(checkpoint, tmp_path):
    base_config = {"model_type": "gpt2", "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    model = SpeechLMForCausalLM(SpeechLMConfig(base_config=base_config, vocab_size=52)).eval()
    folder = tmp_path / "units"
    write_units(folder, {"1_correct": [1] * 6, "1_incorrect": [2], "2_correct": [3], "2_incorrect": [4] * 7})
    fits, too_long = evaluate_pairs(arguments(checkpoint, folder), model).records
    assert fits["skipped"] is None and fits["correct_score"] < 0
    assert too_long["skipped"] == "2_incorrect: too long: 9 tokens, and the model has 8 positions"
    assert (too_long["correct_score"], too_long["incorrect_units"]) == (None, 7)


def test_a_processor_in_memory_is_used_and_left_as_it_is(checkpoint, stories, tiny_model, tiny_codec):
    expected = evaluate_pairs(arguments(checkpoint, stories), tiny_model)
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    processor = SpeechLMProcessor(feature_extractor, HubertUnitTokenizer(num_units=50))
    args = arguments(checkpoint, stories)
    (checkpoint / "model").rename(checkpoint / "gone")
    assert evaluate_pairs(args, tiny_model, processor).records == expected.records
    assert processor.audio_tokenizer is None
    assert (processor.tokenizer.add_eos_token, processor.tokenizer.padding_side) == (False, "right")


def test_a_benchmark_is_checked_without_reading_its_audio(stories, tmp_path):
    for path in stories.iterdir():
        path.write_bytes(b"no audio")
    check_benchmark("sstorycloze", str(stories), num_units=50)
    (stories / "1_correct.wav").unlink()
    with pytest.raises(ValueError, match="1 items are not a pair .* '1_incorrect'"):
        check_benchmark("sstorycloze", str(stories), num_units=50)
    with pytest.raises(FileNotFoundError, match="The folder '.*nowhere' of the benchmark sblimp is not there"):
        check_benchmark("sblimp", str(tmp_path / "nowhere"), num_units=50)
    with pytest.raises(FileNotFoundError, match="gold.csv': no such file"):
        check_benchmark("sblimp", str(stories), num_units=50)
    with pytest.raises(ValueError, match="can be sblimp, .*, salmon, and 'genppl' is none of them"):
        check_benchmark("genppl", str(stories), num_units=50)
    write_units(tmp_path / "units", {"1_correct": [3, 50], "1_incorrect": [3]})
    with pytest.raises(ValueError, match=r"'1_correct' has the unit 50, but the model only knows 0 to 49"):
        check_benchmark("tstorycloze", str(tmp_path / "units"), num_units=50)
    check_benchmark("tstorycloze", str(tmp_path / "units"), num_units=51)


def test_sblimp_labels_reach_the_metric(checkpoint, tiny_model, tmp_path):
    folder = tmp_path / "dev"
    write_units(folder, {"aa": [1, 2], "bb": [2, 1, 7], "cc": [4, 1], "dd": [5]})
    with open(folder / "gold.csv", "w", newline="") as file:
        rows = [["filename", "id", "voice", "type", "subtype", "correct"]]
        rows += [["aa", "1", "A", "binding", "x", 1], ["bb", "1", "A", "binding", "x", 0]]
        rows += [["cc", "1", "A", "ellipsis", "y", 1], ["dd", "1", "A", "ellipsis", "y", 0]]
        csv.writer(file).writerows(rows)
    evaluation = evaluate_pairs(arguments(checkpoint, folder, task="sblimp"), tiny_model)
    assert set(evaluation.results["by_type"]) == {"binding", "ellipsis"}
    assert evaluation.results["num_items"] == 2
    assert [record["voice"] for record in evaluation.records] == ["A", "A"]


def test_results_can_be_computed_again_from_the_parquet_file(checkpoint, tiny_model, tmp_path):
    parts = {"bg_alignment": 3, "rir_consistency": 2}
    names = [f"{part}/sample_{n}_{side}" for part, count in parts.items() for n in range(count) for side in "01"]
    generator = np.random.default_rng(0)
    write_units(tmp_path / "salmon", {name: generator.integers(0, 50, size=9).tolist() for name in names})
    evaluation = evaluate_pairs(arguments(checkpoint, tmp_path / "salmon", task="salmon"), tiny_model)
    save_evaluation(evaluation, tmp_path / "results", num_parameters=10)
    records = pq.read_table(tmp_path / "results" / "salmon.parquet").to_pylist()
    assert records == evaluation.records
    assert TASKS["salmon"].compute(records) == evaluation.results


def test_the_hash_of_the_data_depends_on_its_content_and_not_on_its_folder(checkpoint, stories, tiny_model, tmp_path):
    before = evaluate_pairs(arguments(checkpoint, stories), tiny_model)
    moved = evaluate_pairs(arguments(checkpoint, stories.rename(tmp_path / "elsewhere")), tiny_model)
    assert moved.data["hash"] == before.data["hash"]
    (tmp_path / "elsewhere" / "0_correct.wav").rename(tmp_path / "swap")
    (tmp_path / "elsewhere" / "0_incorrect.wav").rename(tmp_path / "elsewhere" / "0_correct.wav")
    (tmp_path / "swap").rename(tmp_path / "elsewhere" / "0_incorrect.wav")
    assert (
        evaluate_pairs(arguments(checkpoint, tmp_path / "elsewhere"), tiny_model).data["hash"] != before.data["hash"]
    )
