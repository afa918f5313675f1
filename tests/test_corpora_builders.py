import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, load_dataset
from loopback_hub import run_with_hub

import slam_hf
from slam_hf.corpora.builders import BUILDERS, SOURCES, hash_sources
from slam_hf.corpora.schema import PREFERENCE_FEATURES, UNIT_CORPUS_FEATURES
from slam_hf.encoding.dataset_source import dataset_source
from slam_hf.quickstart import QUICKSTART_CORPUS


FIXTURES = Path(__file__).parent / "fixtures"
UNDECODED = Audio(decode=False)


@pytest.fixture(params=[False, True], ids=["loaded", "streamed"])
def load(request, tmp_path):
    """`load_dataset`, and the rows of a split with its audio undecoded."""

    def load(path, split="train", **arguments):
        dataset = load_dataset(
            path, split=split, streaming=request.param, cache_dir=str(tmp_path / "cache"), **arguments
        )
        for column, feature in dataset.features.items():
            if isinstance(feature, Audio):
                dataset = dataset.cast_column(column, UNDECODED)
        return list(dataset)

    return load


def write_audio(path, seconds=0.1, sampling_rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(seconds * sampling_rate)), sampling_rate)
    return str(path)


def unit_rows(*ids, **columns):
    return [{"id": id, "units": [3, 4], "durations": [1, 2], "num_frames": 3, **columns} for id in ids]


@pytest.fixture
def librispeech(tmp_path):
    root = tmp_path / "LibriSpeech"
    for chapter in ("train-clean-100/103/1240", "train-clean-100/103/1241", "dev-clean/84/121123"):
        speaker, number = chapter.split("/")[1:]
        lines = []
        for utterance in range(2):
            name = f"{speaker}-{number}-{utterance:04d}"
            write_audio(root / chapter / f"{name}.flac")
            lines.append(f"{name} TEXT OF {utterance}\n")
        (root / chapter / f"{speaker}-{number}.trans.txt").write_text("".join(lines))
    return root


def test_librispeech_is_loaded_with_its_splits(load, librispeech):
    rows = load("librispeech", data_dir=str(librispeech))

    assert [row["id"] for row in rows] == [f"103-{chapter}-000{i}" for chapter in (1240, 1241) for i in range(2)]
    assert rows[1] == {
        "id": "103-1240-0001",
        "audio": {"bytes": None, "path": str(librispeech / "train-clean-100/103/1240/103-1240-0001.flac")},
        "text": "TEXT OF 1",
        "speaker_id": 103,
        "chapter_id": 1240,
    }
    assert [row["id"] for row in load("librispeech", split="validation", data_dir=str(librispeech))] == [
        "84-121123-0000",
        "84-121123-0001",
    ]


def test_librilight_is_loaded_with_its_metadata(load, tmp_path):
    folder = tmp_path / "unlab" / "small" / "960" / "history_of_holland"
    write_audio(folder / "01_64kb.flac")
    write_audio(folder / "02_64kb.flac")
    metadata = {
        "speaker": "960",
        "book_meta": {"id": "319", "title": "History of Holland", "genre": ["History"]},
        "snr": 5.391,
        "voice_activity": [[0.4, 12.32], [13.0, 14.0]],
    }
    (folder / "01_64kb.json").write_text(json.dumps(metadata))

    first, second = load("librilight", data_dir=str(tmp_path / "unlab"))

    assert first == {
        "id": "960/history_of_holland/01_64kb",
        "audio": {"bytes": None, "path": str(folder / "01_64kb.flac")},
        "speaker_id": "960",
        "book_id": "319",
        "title": "History of Holland",
        "snr": 5.391,
        "voice_activity": [[0.4, 12.32], [13.0, 14.0]],
    }
    assert (second["id"], second["speaker_id"], second["snr"]) == ("960/history_of_holland/02_64kb", "960", None)


def test_stinystories_is_loaded_with_its_times(load, tmp_path):
    path = write_audio(tmp_path / "story.wav", sampling_rate=24_000)
    row = {
        "audio": {"bytes": Path(path).read_bytes(), "path": "story.wav"},
        "text": "Once.",
        "aligned_text": [{"word": "Once.", "start_time": 0.0, "end_time": 0.1}],
        "split_sentence": 7,
    }
    Dataset.from_list([row]).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")

    assert load("stinystories", data_dir=str(tmp_path)) == [row]


def test_spokenswag_is_loaded_as_pairs_of_audio(load, tmp_path):
    path = write_audio(tmp_path / "clip.wav", sampling_rate=24_000)
    clip = {"bytes": Path(path).read_bytes(), "path": "clip.wav"}
    row = {"speaker": "af_bella", "prompt_text": "A man", "chosen_text": "sits.", "rejected_text": "flies."}
    row |= {"prompt": clip, "chosen": clip, "rejected": clip, "auto_bleu2": 0.1}
    Dataset.from_list([row]).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")

    assert load("spokenswag", data_dir=str(tmp_path)) == [row]
    dataset = load_dataset("spokenswag", data_dir=str(tmp_path), split="train", streaming=True)
    assert dataset.features["chosen"] == Audio(sampling_rate=24_000, decode=False)
    (pair,) = dataset_source(dataset, has_pairs=True).parts[0].read(0)
    assert [(clip.id, clip.text) for clip in pair] == [
        ("00000-0000000/prompt", "A man"),
        ("00000-0000000/chosen", "sits."),
        ("00000-0000000/rejected", "flies."),
    ]


def test_speech_units_are_loaded_with_all_their_columns(load, tmp_path):
    Dataset.from_list(unit_rows("a", "b")).to_parquet(tmp_path / "train.parquet")

    rows = load("speech_units", data_files=str(tmp_path / "train.parquet"))

    assert rows == unit_rows("a", "b", text=None, aligned_text=None)


def test_speech_units_take_the_arguments_of_parquet(load, tmp_path):
    Dataset.from_list(unit_rows("a", "b")).to_parquet(tmp_path / "train.parquet")

    rows = load("speech_units", data_files=str(tmp_path / "train.parquet"), columns=["units"])

    assert rows == [{"units": [3, 4]}, {"units": [3, 4]}]


def test_parquet_without_units_is_not_a_corpus_of_units(load, tmp_path):
    Dataset.from_dict({"id": ["a"], "audio": ["a.wav"]}).to_parquet(tmp_path / "train.parquet")

    with pytest.raises(
        ValueError, match=r"not 'speech_units': they have no column 'durations', only \['audio', 'id'\]"
    ):
        load("speech_units", data_files=str(tmp_path / "train.parquet"))


def test_slamkit_units_are_loaded_as_a_corpus(load):
    rows = load("slamkit_units", data_files=str(FIXTURES / "librispeech-clips" / "features.jsonl"))

    assert [row["num_frames"] for row in rows] == [398, 352]
    assert set(rows[0]) == set(UNIT_CORPUS_FEATURES)


def test_preference_units_are_loaded_from_parquet(load, tmp_path):
    pair = {"id": "7", "prompt": "<Un1>", "chosen": "<Un2>", "rejected": "<Un3>"}
    pair |= {"prompt_text": "a", "chosen_text": "b", "rejected_text": "c"}
    Dataset.from_list([pair], PREFERENCE_FEATURES).to_parquet(tmp_path / "train.parquet")

    assert load("preference_units", data_files=str(tmp_path / "train.parquet")) == [pair]


@pytest.mark.parametrize("clip", [[1, 20], "<Un1><Un20>", {"units": [1, 20], "duration": [1, 1]}])
def test_preference_units_are_loaded_from_json_lines(load, tmp_path, clip):
    pair = {"prompt": clip, "chosen": clip, "rejected": clip, "prompt_text": "a"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")

    assert load("preference_units", data_files=str(tmp_path / "pairs.jsonl")) == [
        {
            "id": "000000000",
            "prompt": "<Un1><Un20>",
            "chosen": "<Un1><Un20>",
            "rejected": "<Un1><Un20>",
            "prompt_text": "a",
            "chosen_text": None,
            "rejected_text": None,
        }
    ]


PAIR = {"prompt": "<Un1>", "chosen": [2, 3], "rejected": "<Un4>"}


def test_preference_units_pass_over_blank_lines_and_a_byte_order_mark(load, tmp_path):
    lines = ["", json.dumps({"id": 7, **PAIR}), "  ", json.dumps({**PAIR, "prompt_text": "a\u2028b\x85c"})]
    text = "\ufeff" + "\r\n".join(lines).replace("\\u2028", "\u2028").replace("\\u0085", "\x85")
    (tmp_path / "pairs.jsonl").write_text(text, encoding="utf-8", newline="")

    rows = load("preference_units", data_files=str(tmp_path / "pairs.jsonl"))

    assert [(row["id"], row["chosen"], row["prompt_text"]) for row in rows] == [
        ("7", "<Un2><Un3>", None),
        ("000000001", "<Un2><Un3>", "a\u2028b\x85c"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("7", "a pair needs prompt, chosen, rejected, and has no prompt, chosen, rejected"),
        (json.dumps({"prompt": "<Un1>", "chosen": None}), "and has no chosen, rejected"),
        (json.dumps({**PAIR, "prompt": "<Un1> <Un2>"}), "`prompt`: '<Un1> <Un2>' is not a unit string"),
        (json.dumps({**PAIR, "chosen": "hello"}), "`chosen`: 'hello' is not a unit string"),
        (json.dumps({**PAIR, "rejected": [-1]}), "`rejected`: unit -1 is outside the vocabulary of units 0 to 65535"),
        (json.dumps({**PAIR, "rejected": [65536]}), "`rejected`: unit 65536 is outside"),
        (
            json.dumps({**PAIR, "rejected": {"text": "a"}}),
            "`rejected`: expected a unit string or a list of units, got 'None'",
        ),
        (json.dumps({**PAIR, "chosen_text": 5}), "`chosen_text` is not text: 5"),
        ("\udcff", "'utf-8' codec can't decode"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_wrong_preference_pair_is_named(load, tmp_path, line, message):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(f"{json.dumps(PAIR)}\n\n{line}\n".encode(errors="surrogateescape"))

    with pytest.raises(ValueError, match=f"'{path}', line 3: .*{message}"):
        load("preference_units", data_files=str(path))


def test_a_wrong_preference_pair_in_parquet_is_named(load, tmp_path):
    Dataset.from_list([{"prompt": "<Un1>", "chosen": "<Un2>"}]).to_parquet(tmp_path / "train.parquet")

    with pytest.raises(ValueError, match=r"train.parquet', row 0: a pair needs .*, and has no rejected"):
        load("preference_units", data_dir=str(tmp_path))


def test_a_wrong_metadata_file_is_named(load, tmp_path):
    write_audio(tmp_path / "small" / "960" / "book" / "01.flac")
    (tmp_path / "small" / "960" / "book" / "01.json").write_text('{"snr": "loud"}')

    with pytest.raises(ValueError, match=r"01.json' is not a file of Libri-Light"):
        load("librilight", data_dir=str(tmp_path))


def test_recordings_are_read_without_an_audio_library_of_datasets(librispeech, tmp_path):
    rows = load_dataset("librispeech", data_dir=str(librispeech), split="train", cache_dir=str(tmp_path / "cache"))

    assert slam_hf.load_audio(rows[0]["audio"], 16_000).shape == (1600,)


def test_a_transcript_may_begin_with_a_byte_order_mark(load, librispeech):
    transcript = librispeech / "dev-clean/84/121123/84-121123.trans.txt"
    transcript.write_text(transcript.read_text(), encoding="utf-8-sig")

    rows = load("librispeech", split="validation", data_dir=str(librispeech))

    assert [row["text"] for row in rows] == ["TEXT OF 0", "TEXT OF 1"]


@pytest.mark.parametrize("name", [name for name in BUILDERS if ":" not in name])
def test_a_folder_of_the_name_of_a_builder_is_read_as_without_this_package(load, tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "train.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "other.jsonl").write_text('{"b": 1}\n')
    monkeypatch.chdir(tmp_path)

    assert load(name) == [{"a": 1}]


def test_a_builder_reads_what_it_is_given_beside_a_folder_of_its_name(load, librispeech, monkeypatch):
    librispeech.rename(librispeech.with_name("librispeech"))
    monkeypatch.chdir(librispeech.parent)

    assert load("librispeech", data_dir="librispeech", split="validation")[0]["text"] == "TEXT OF 0"
    assert load("librispeech", data_files="librispeech/dev-clean/**")[0]["text"] == "TEXT OF 0"


@pytest.mark.parametrize("name", ["librispeech", "librilight"])
def test_a_folder_without_recordings_is_refused(load, tmp_path, name):
    write_audio(tmp_path / "data" / "train" / "a.wav")

    with pytest.raises(ValueError, match="'train' has no .*: pass its folder as `data_dir`"):
        load(name, data_dir=str(tmp_path / "data"))


def test_the_quickstart_data_are_loaded_by_their_names(load):
    assert len(load("quickstart:preferences", split="validation")) == 100
    stories = load("quickstart:corpus", name="stories", split="validation")
    assert stories == load(str(QUICKSTART_CORPUS), name="stories", split="validation")


def test_the_hash_of_the_builders_is_of_their_own_sources(tmp_path):
    package = Path(slam_hf.__file__).parent
    copy = tmp_path / "slam_hf"
    shutil.copytree(
        package, copy, ignore=lambda _, names: [name for name in names if Path(name).suffix not in ("", ".py")]
    )
    before = hash_sources(copy)
    assert before == hash_sources(package)
    changes = set()
    for file in copy.rglob("*.py"):
        source = file.read_bytes()
        file.write_bytes(source + b"#")
        if hash_sources(copy) != before:
            changes.add(file.relative_to(copy).as_posix())
        file.write_bytes(source)
    builders = {f"corpora/builders/{name}" for name in os.listdir(package / "corpora" / "builders") if ".py" in name}
    imported = {
        f"{name.replace('.', '/')}.py"
        for builder in builders
        for name in re.findall(r"^from slam_hf\.(\S+) import", (package / builder).read_text(), re.MULTILINE)
    }
    assert imported - {"quickstart.py"} <= changes
    assert changes == builders | {source for source in SOURCES if source.endswith(".py")}


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_a_data_loader_share_the_files(tmp_path, context):
    for shard in range(2):
        Dataset.from_list(unit_rows(f"{shard}-0", f"{shard}-1")).to_parquet(tmp_path / f"train-{shard}.parquet")
    dataset = load_dataset("speech_units", data_files=str(tmp_path / "*.parquet"), split="train", streaming=True)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=context)

    assert sorted(row["id"] for row in loader) == ["0-0", "0-1", "1-0", "1-1"]


def test_builders_read_from_the_hub(tmp_path, librispeech):
    Dataset.from_list(unit_rows("a", "b")).to_parquet(tmp_path / "units" / "data" / "train-00000-of-00001.parquet")
    script = f"""
import slam_hf
from datasets import Audio, load_dataset
from huggingface_hub import HfApi
from slam_hf.encoding.dataset_source import dataset_source
from slam_hf.encoding.reading import PieceRules, read_pieces

api = HfApi()
for name in ("units", "LibriSpeech"):
    api.create_repo("org/" + name, repo_type="dataset")
    api.upload_folder(folder_path={str(tmp_path)!r} + "/" + name, repo_id="org/" + name, repo_type="dataset")

for streaming in (False, True):
    units = load_dataset("org/units", split="train", streaming=streaming)
    print([row["id"] for row in units])
    files = "hf://datasets/org/units/data/*"
    units = load_dataset("speech_units", data_files=files, split="train", streaming=streaming)
    print([row["id"] for row in units])
    files = "hf://datasets/org/LibriSpeech/dev-clean/**"
    clips = load_dataset("librispeech", data_files=files, split="train", streaming=streaming)
    rows = [row for part in dataset_source(clips).parts for row in part.read(0)]
    rules = PieceRules(min_peak_dbfs=-1000.0)
    print([next(read_pieces(recording, rules, 16000, 25.0)) for (recording,) in rows])
"""

    lines = run_with_hub(script, tmp_path / "hub").splitlines()

    assert lines[:2] == lines[3:5] == ["['a', 'b']", "['a', 'b']"]
    assert lines[2].count("Skipped") == lines[2].count("all zeros") == 2
    assert lines[5].count("Skipped") == lines[5].count("all zeros") == 2
