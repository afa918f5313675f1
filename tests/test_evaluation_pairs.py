import copy
import csv
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from transformers import AutoTokenizer, EncodecFeatureExtractor

from slam_hf import SpeechLMConfig, SpeechLMForCausalLM, SpeechLMProcessor
from slam_hf.corpora.schema import UNIT_CORPUS_FEATURES
from slam_hf.evaluation.arguments import EvaluationArguments
from slam_hf.evaluation.pairs import check_benchmark, evaluate_pairs
from slam_hf.evaluation.report import save_evaluation
from slam_hf.evaluation.tasks import TASKS
from slam_hf.fingerprints import hash_rows


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


@pytest.mark.parametrize(("dtype", "alone"), [("float32", 0), ("bfloat16", 2)])
def test_scores_that_rounding_could_swap_are_computed_alone(checkpoint, tiny_model, monkeypatch, dtype, alone):
    generator = np.random.default_rng(0)
    first = generator.integers(50, size=100).tolist()
    score = tiny_model.log_likelihood(torch.tensor([[1, *(unit + 2 for unit in first), 1]])).item()
    for unit in range(50):
        second = [*first[:-1], unit]
        other = tiny_model.log_likelihood(torch.tensor([[1, *(unit + 2 for unit in second), 1]])).item()
        if 1e-3 < abs(other / score - 1) < 3e-3:
            break
    write_units(checkpoint / "units", {"0_correct": first, "0_incorrect": second})
    rows, log_likelihood = [], SpeechLMForCausalLM.log_likelihood
    monkeypatch.setattr(
        SpeechLMForCausalLM, "log_likelihood", lambda *args: rows.append(len(args[1])) or log_likelihood(*args)
    )
    evaluate_pairs(arguments(checkpoint, checkpoint / "units", dtype=dtype), copy.deepcopy(tiny_model))
    assert rows == [2, *[1] * alone]


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


def test_a_processor_in_memory_is_used_and_left_as_it_is(checkpoint, stories, tiny_model, tiny_processor):
    expected = evaluate_pairs(arguments(checkpoint, stories), tiny_model)
    args = arguments(checkpoint, stories)
    (checkpoint / "model").rename(checkpoint / "gone")
    assert evaluate_pairs(args, tiny_model, tiny_processor).records == expected.records
    assert tiny_processor.audio_tokenizer is None
    tokenizer = tiny_processor.tokenizer
    assert (tokenizer.add_eos_token, tokenizer.padding_side) == (False, "right")


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


@pytest.fixture(scope="module")
def mixed(interleaved_checkpoint) -> tuple[SpeechLMForCausalLM, SpeechLMProcessor]:
    """The reference toolkit's model of speech and text, of 40 units."""
    text_tokenizer = interleaved_checkpoint / "text-tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(interleaved_checkpoint, text_tokenizer=text_tokenizer)
    feature_extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=16_000)
    model = SpeechLMForCausalLM.from_pretrained(interleaved_checkpoint).eval()
    return model, SpeechLMProcessor(feature_extractor, tokenizer)


@pytest.fixture
def parts(interleaved_checkpoint, tmp_path):
    """Four stories in the cross-modal layout, as units and as text; each but the first has a wrong ending."""
    rows = json.loads((interleaved_checkpoint / "interleaved.json").read_text())["rows"]
    folder = tmp_path / "parts"
    folder.mkdir()
    table = []
    for number in range(4):
        story, other = rows[number], rows[number - 4]
        words = story["text"].split(" ")
        ending = story["units"][60:]
        parts = {"mutual": (story["units"][:60], " ".join(words[:6])), "correct": (ending, " ".join(words[6:]))}
        parts["incorrect"] = (other["units"][:20], other["text"] + "\n") if number else parts["correct"]
        table += [{"id": f"{number}_{name}", "units": units, "text": text} for name, (units, text) in parts.items()]
    pq.write_table(pa.Table.from_pylist(table), folder / "units.parquet")
    return folder


def evaluate_mixed(mixed, data, task="tstorycloze", **kwargs):
    model, processor = mixed
    folder = data.parent
    args = EvaluationArguments("mixed", task, str(data), str(folder / "results"), cache_dir=str(folder), **kwargs)
    return evaluate_pairs(args, model, processor)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_units_alone_have_the_scores_of_the_reference_toolkit(mixed, interleaved_checkpoint, tmp_path, reduction):
    rows = json.loads((interleaved_checkpoint / "interleaved.json").read_text())["rows"]
    names = [f"{number}_{side}" for number in range(4) for side in ("correct", "incorrect")]
    write_units(tmp_path / "units", {name: row["units"] for name, row in zip(names, rows, strict=True)})
    with np.load(interleaved_checkpoint / "reference.npz") as reference:
        for ban_text, name in ((False, "all"), (True, "speech")):
            evaluation = evaluate_mixed(mixed, tmp_path / "units", reduction=reduction, ban_text=ban_text)
            scores = [record[f"{side}_score"] for record in evaluation.records for side in ("correct", "incorrect")]
            np.testing.assert_allclose(scores, reference[f"ll_units_only_{name}_{reduction}"], rtol=1e-6, atol=1e-4)
    assert evaluation.settings == {"reduction": reduction, "dtype": "float32", "ban_text": True}


def score_strings(mixed, context: str, ending: str) -> tuple[float, float]:
    """Mean log-likelihoods of both together, and of the ending after the context."""
    model, processor = mixed
    whole, before = (processor.tokenizer(text)["input_ids"] for text in (context + ending, context))
    assert whole[: len(before)] == before
    log_probs = torch.log_softmax(model(torch.tensor([whole])).logits[0].double(), dim=-1)
    tokens = [log_probs[place - 1, whole[place]].item() for place in range(1, len(whole))]
    tail = tokens[len(before) - 1 :]
    return np.mean(tokens), np.mean(tail)


@pytest.mark.parametrize(("direction", "task"), [("ss", ""), ("st", "_s2t"), ("ts", "_t2s"), ("tt", "_t2t")])
def test_stories_are_scored_in_all_directions(mixed, parts, direction, task):
    evaluation = evaluate_mixed(mixed, parts, f"tstorycloze{task}")
    rows = {row["id"]: row for row in pq.read_table(parts / "units.parquet").to_pylist()}
    tokens = {"s": "<speech>", "t": "<text>"}

    def write(name, modality):
        units = "".join(f"<Un{unit}>" for unit in rows[name]["units"])
        return units if modality == "s" else rows[name]["text"].strip()

    for number, record in enumerate(evaluation.records):
        assert record["skipped"] is None and record["prompt"] == f"{number}_mutual"
        context = write(record["prompt"], direction[0])
        if direction != "ss":
            context = tokens[direction[0]] + context + (tokens[direction[1]] if direction[0] != direction[1] else "")
        for side in ("correct", "incorrect"):
            ending = write(record[side], direction[1])
            published, conditional = score_strings(mixed, context, ending)
            _, alone = score_strings(mixed, tokens[direction[1]], ending)
            assert record[f"{side}_score"] == pytest.approx(published, abs=1e-5)
            assert record[f"conditional_{side}_score"] == pytest.approx(conditional, abs=1e-5)
            assert record[f"pmi_{side}_score"] == pytest.approx(conditional - alone, abs=1e-5)
    results = evaluation.results
    for part, prefix in ((results, ""), (results["conditional"], "conditional_"), (results["pmi"], "pmi_")):
        scores = [
            [record[f"{prefix}{side}_score"] for side in ("correct", "incorrect")] for record in evaluation.records
        ]
        assert part["accuracy"] == np.mean([0.5 if right == wrong else right > wrong for right, wrong in scores])
        assert part["num_ties"] == 1 and len(part["accuracy_interval"]) == 2


def test_the_joined_parts_of_a_story_are_scored_as_the_whole_story(checkpoint, tiny_model, tmp_path):
    stories = {"1_mutual": [1, 2, 3], "1_correct": [3, 4, 5], "1_incorrect": [6, 7]}
    write_units(tmp_path / "parts", stories)
    write_units(tmp_path / "whole", {"1_correct": [1, 2, 3, 4, 5], "1_incorrect": [1, 2, 3, 6, 7]})
    (of_parts,), (of_whole,) = (
        evaluate_pairs(arguments(checkpoint, tmp_path / name), tiny_model).records for name in ("parts", "whole")
    )
    assert of_whole.items() <= of_parts.items()
    ids = torch.tensor([[1, 3, 4, 5, 6, 7, 1], [1, 6, 7, 1, 0, 0, 0]])
    tokens, alone = tiny_model.log_likelihood(ids, reduction="none")
    assert of_parts["conditional_correct_score"] == pytest.approx(tokens[4:].mean().item(), abs=1e-5)
    assert of_parts["pmi_correct_score"] == pytest.approx((tokens[4:].mean() - alone[1:4].mean()).item(), abs=1e-5)


def test_the_audio_of_prompt_and_ending_is_joined_before_it_is_encoded(
    checkpoint, tiny_model, tiny_codec, recordings, tmp_path
):
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    folder = tmp_path / "cross"
    folder.mkdir()
    pieces = {"1_mutual": (0, 24000), "1_correct": (24000, 40000), "1_incorrect": (60000, 75000)}
    for name, (start, end) in pieces.items():
        soundfile.write(folder / f"{name}.wav", waveform[start:end], rate, subtype="FLOAT")
    evaluation = evaluate_pairs(arguments(checkpoint, folder), tiny_model)
    (record,) = evaluation.records
    prompt, correct, incorrect = (hashlib.sha256((folder / f"{name}.wav").read_bytes()).hexdigest() for name in pieces)
    contents = ["1_correct", "1_incorrect", {}, "1_mutual", prompt, correct, incorrect]
    assert evaluation.data["hash"] == hash_rows([contents])
    for side in ("correct", "incorrect"):
        start, end = pieces[f"1_{side}"]
        joined = np.concatenate([waveform[:24000], waveform[start:end]])
        codes = tiny_codec.encode(torch.from_numpy(joined)[None]).audio_codes[0, 0]
        units, durations = tiny_codec.deduplicate(codes)
        tokens = tiny_model.log_likelihood(torch.tensor([[1, *(units + 2), 1]]), reduction="none")[0]
        # The prompt lasts 37.5 frames of 640 samples.
        first = 1 + int((torch.cumsum(durations, 0) - durations < 38).sum())
        assert record[f"{side}_units"] == len(units) and 1 < first < len(units)
        assert record[f"{side}_score"] == pytest.approx(tokens[1:].mean().item(), abs=1e-5)
        assert record[f"conditional_{side}_score"] == pytest.approx(tokens[first:].mean().item(), abs=1e-5)


def test_a_story_with_a_part_that_cannot_be_read_is_skipped_and_its_reason_names_the_part(
    checkpoint, tiny_model, recordings, tmp_path
):
    waveform, rate = soundfile.read(recordings[0], dtype="float32")
    folder = tmp_path / "cross"
    folder.mkdir()
    for number in (1, 2, 3):
        for part, start in (("mutual", 0), ("correct", 20000), ("incorrect", 40000)):
            soundfile.write(folder / f"{number}_{part}.wav", waveform[start : start + 16000], rate)
    (folder / "1_mutual.wav").write_bytes(b"no audio")
    soundfile.write(folder / "2_correct.wav", np.full(16000, np.nan, np.float32), rate, subtype="FLOAT")
    first, second, third = evaluate_pairs(arguments(checkpoint, folder), tiny_model).records
    assert first["skipped"].startswith("1_correct: corrupt: 1_mutual.wav: ")
    assert "; 1_incorrect: corrupt: 1_mutual.wav: " in first["skipped"] and str(tmp_path) not in first["skipped"]
    assert second["skipped"] == "2_correct: not finite: 2_correct.wav: NaN or infinite samples"
    assert third["skipped"] is None
    again = evaluate_pairs(arguments(checkpoint, folder), tiny_model)
    assert again.records == [first, second, third]


def test_texts_are_read_beside_the_audio(mixed, tmp_path):
    model, processor = mixed
    folder = tmp_path / "cross"
    folder.mkdir()
    texts = {"mutual": "She put the letters back.\n", "correct": " He sold it.", "incorrect": "Nobody had told him."}
    for name, text in texts.items():
        (folder / f"7_{name}.txt").write_text(text)
    (folder / "README.txt").write_text("About the benchmark.")
    args = EvaluationArguments("mixed", "tstorycloze_t2t", str(folder), str(tmp_path / "results"))
    (record,) = evaluate_pairs(args, model, processor).records
    expected = score_strings(mixed, "<text>She put the letters back.", "He sold it.")
    assert (record["correct_score"], record["conditional_correct_score"]) == pytest.approx(expected, abs=1e-5)
    assert record["correct_units"] == 0
    with pytest.raises(FileNotFoundError, match=r"1 utterances of tstorycloze_s2t are missing: '7_mutual' as speech"):
        evaluate_mixed(mixed, folder, "tstorycloze_s2t")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (" \n", "2_correct: its text is empty"),
        ("He sold <Un3> it.", "2_correct: its text holds <Un3>, a token of speech"),
        ("He sold <text> it.", "2_correct: its text holds <text>, a token of speech"),
        (None, None),
    ],
)
def test_a_text_that_cannot_be_scored_is_skipped_and_a_missing_one_refused(mixed, parts, text, problem):
    table = pq.read_table(parts / "units.parquet").to_pylist()
    next(row for row in table if row["id"] == "2_correct")["text"] = text
    pq.write_table(pa.Table.from_pylist(table), parts / "units.parquet")
    if problem is None:
        with pytest.raises(
            FileNotFoundError, match="1 utterances of tstorycloze_s2t are missing: '2_correct' as text"
        ):
            evaluate_mixed(mixed, parts, "tstorycloze_s2t")
        return
    records = evaluate_mixed(mixed, parts, "tstorycloze_s2t").records
    assert [record["skipped"] for record in records] == [None, None, problem, None]
    assert records[2]["pmi_correct_score"] is None


def test_a_text_that_is_not_utf8_is_skipped(mixed, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in (1, 2):
        for name in ("mutual", "correct", "incorrect"):
            (folder / f"{number}_{name}.txt").write_text(f"The {name} one.")
    (folder / "2_mutual.txt").write_bytes(b"caf\xe9")
    first, second = evaluate_mixed(mixed, folder, "sstorycloze_t2t").records
    assert first["skipped"] is None
    assert second["skipped"] == "2_mutual: its text is not UTF-8 (unexpected end of data)"


def test_what_a_task_of_text_needs_is_checked(checkpoint, mixed, parts, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="tstorycloze_s2t has text, and the model only knows units"):
        evaluate_pairs(arguments(checkpoint, parts, task="tstorycloze_s2t"), tiny_model)
    with pytest.raises(ValueError, match="tstorycloze_t2s has text, and the model only knows units"):
        check_benchmark("tstorycloze_t2s", str(parts), num_units=40)
    check_benchmark("tstorycloze_t2s", str(parts), num_units=40, reads_text=True)
    with pytest.raises(ValueError, match="`ban_text` is for models of speech and text, and for tasks of speech alone"):
        evaluate_mixed(mixed, parts, "tstorycloze_s2t", ban_text=True)
    write_units(tmp_path / "whole", {"1_correct": [1, 2], "1_incorrect": [3]})
    with pytest.raises(ValueError, match=r"holds whole stories, but tstorycloze_t2t needs parts of stories"):
        evaluate_mixed(mixed, tmp_path / "whole", "tstorycloze_t2t")
    write_units(tmp_path / "incomplete", {"1_mutual": [1], "1_correct": [1, 2], "1_incorrect": [3], "2_mutual": [4]})
    with pytest.raises(ValueError, match="1 items are not a pair of .* with a prompt: '2_mutual'"):
        evaluate_mixed(mixed, tmp_path / "incomplete")
    write_units(tmp_path / "other", {"1_mutual": [40], "1_correct": [1, 2], "1_incorrect": [3]})
    with pytest.raises(ValueError, match="'1_mutual' has the unit 40, but the model only knows 0 to 39"):
        evaluate_mixed(mixed, tmp_path / "other")
    write_units(tmp_path / "short", {"1_mutual": [5], "1_correct": [5], "1_incorrect": [3]})
    with pytest.raises(ValueError, match="Every one of 1 items had to be skipped: .*too short: there is no token to"):
        evaluate_mixed(mixed, tmp_path / "short")
