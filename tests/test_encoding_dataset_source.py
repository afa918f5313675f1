import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, Features, IterableDataset, load_dataset, load_dataset_builder

from slam_hf.encoding import dataset_source as module
from slam_hf.encoding.dataset_source import dataset_source, load_split
from slam_hf.encoding.recordings import Recording, Skipped, SkipReason


@pytest.fixture
def paths(tmp_path):
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(8000), 8000)
    return [str(tmp_path / f"{name}.wav") for name in "abc"]


def file(path):
    return {"bytes": None, "path": path}


def rows(source):
    return [row for part in source.parts for row in part.read(0)]


def test_rows_are_named_by_their_position(paths, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_PART", 2)
    dataset = Dataset.from_dict({"audio": paths}).cast_column("audio", Audio())

    source = dataset_source(dataset)

    assert [part.num_rows for part in source.parts] == [2, 1]
    assert rows(source) == [[Recording(f"{i:09d}", file(path))] for i, path in enumerate(paths)]
    assert list(source.parts[0].read(1)) == [[Recording("000000001", file(paths[1]))]]


def test_columns_give_ids_and_texts(paths):
    words = [{"word": "go", "start_time": 0.0, "end_time": 0.3}]
    columns = {"speech": paths[:1], "name": ["utt"], "said": ["go"], "aligned_text": [words], "other": [0]}

    source = dataset_source(Dataset.from_dict(columns), "speech", id_column="name", text_column="said")

    assert rows(source) == [[Recording("utt", paths[0], text="go", aligned_text=words)]]


def test_bytes_are_files(paths):
    content = Path(paths[0]).read_bytes()

    assert rows(dataset_source(Dataset.from_dict({"audio": [content, None]}))) == [
        [Recording("000000000", {"bytes": content, "path": None})],
        [Recording("000000001", {"bytes": None, "path": None})],
    ]


@pytest.fixture
def no_torchcodec(monkeypatch):
    for name in ("torchcodec", "torchcodec.encoders", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("datasets.config.TORCHCODEC_AVAILABLE", False)


@pytest.fixture
def audio_folder(paths, tmp_path, monkeypatch):
    """An audio folder with texts in `metadata.csv`, as a builder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,go\nb.wav,on\nc.wav,\n")
    return load_dataset_builder("audiofolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))


def test_an_audio_folder_is_read_without_torchcodec(paths, audio_folder, no_torchcodec):
    expected = list(zip(paths, ["go", "on", None], strict=True))

    loaded = rows(dataset_source(load_split(audio_folder, "train", {"version": 1})))
    streamed = rows(dataset_source(audio_folder.as_streaming_dataset("train")))

    assert [(row[0].audio, row[0].text) for row in loaded] == expected
    assert [(row[0].audio, row[0].text) for row in streamed] == expected


def test_another_version_of_an_audio_folder_is_prepared_anew(paths, audio_folder, tmp_path):
    load_split(audio_folder, "train", {"version": 1})
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,changed\n")

    assert load_split(audio_folder, "train", {"version": 2})["text"][:] == ["changed"]


@pytest.mark.parametrize("features", [None, Features({"audio": Audio()})])
def test_a_stream_that_is_made_in_python_needs_no_torchcodec(paths, no_torchcodec, features):
    for value in (paths[0], {"path": paths[0], "bytes": None}, {"path": None, "bytes": b"content"}, b"content"):
        stream = IterableDataset.from_generator(lambda value=value: iter([{"audio": value}]), features=features)

        ((recording,),) = rows(dataset_source(stream))

        expected = {"bytes": value, "path": None} if isinstance(value, bytes) else value
        assert recording == Recording("00000-0000000", expected)


@pytest.mark.parametrize("type", ["arrow", "numpy", "torch", "pandas"])
def test_the_format_of_a_dataset_is_not_used(paths, type):
    dataset = Dataset.from_dict({"audio": paths[:1], "text": ["go"]}).with_format(type)

    assert rows(dataset_source(dataset)) == [[Recording("000000000", paths[0], text="go")]]


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"text": "\ud800"}, "'text' is not UTF-8"),
        ({"text": 7}, "'text' is 7, which is not text"),
        ({"audio": None, "name": ""}, "'id' is empty"),
        ({"name": None}, "'id' is None, which is not text"),
        ({"name": "\udcff"}, "'id' is not UTF-8"),
        ({"name": ""}, "'id' is empty"),
        ({"aligned_text": "go"}, "'aligned_text' is not a list of words with 'start_time' and 'end_time'"),
        (
            {"aligned_text": [{"word": "go", "start_time": 0.0, "end_time": 1e30}]},
            "'end_time' is 1e+30, which is not a number of seconds",
        ),
    ],
)
def test_rows_of_a_stream_that_could_not_be_written_are_skipped(paths, row, detail):
    made = [{"audio": paths[0], "name": "a"} | row, {"audio": paths[1], "name": "b"}]
    stream = IterableDataset.from_generator(lambda: iter(made))

    (skipped,), (recording,) = rows(dataset_source(stream, id_column="name"))

    id = "00000-0000000" if "name" in row else "a"
    assert skipped == Skipped(id, SkipReason.MALFORMED, detail)
    assert recording.id == "b"


def test_words_without_a_time_are_kept(paths):
    words = [{"word": "go", "start_time": None, "end_time": None}, {"word": "on", "start_time": 0.1, "end_time": 0.2}]
    dataset = Dataset.from_dict({"audio": paths[:1], "aligned_text": [words]})

    assert rows(dataset_source(dataset)) == [[Recording("000000000", paths[0], aligned_text=words)]]


def test_the_shards_of_a_stream_are_its_parts(paths):
    stream = Dataset.from_dict({"audio": paths}).cast_column("audio", Audio()).to_iterable_dataset(num_shards=2)

    source = dataset_source(stream)

    first, second = source.parts
    assert list(first.read(0)) == [
        [Recording("00000-0000000", file(paths[0]))],
        [Recording("00000-0000001", file(paths[1]))],
    ]
    assert list(first.read(1)) == [[Recording("00000-0000001", file(paths[1]))]]
    assert list(second.read(0)) == [[Recording("00001-0000000", file(paths[2]))]]


def generate(shards):
    for path in shards:
        yield {"audio": path, "text": path[-5:]}


def test_a_stream_that_is_made_in_python_is_read(paths):
    stream = IterableDataset.from_generator(generate, gen_kwargs={"shards": paths[:2]})

    assert rows(dataset_source(stream)) == [
        [Recording("00000-0000000", paths[0], text="a.wav")],
        [Recording("00001-0000000", paths[1], text="b.wav")],
    ]


def test_a_stream_of_parquet_files_is_read(paths, tmp_path):
    dataset = Dataset.from_dict({"audio": [{"bytes": Path(path).read_bytes(), "path": path} for path in paths]})
    dataset.cast_column("audio", Audio()).to_parquet(tmp_path / "train.parquet")
    stream = load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), split="train", streaming=True)

    (part,) = dataset_source(stream).parts

    assert [row[0].audio["bytes"] for row in part.read(1)] == [Path(path).read_bytes() for path in paths[1:]]


def test_a_preference_pair_is_a_row_of_three_recordings(paths):
    columns = dict(zip(["prompt", "chosen", "rejected"], [[path] for path in paths], strict=True))
    texts = {"prompt_text": ["p"], "chosen_text": ["c"], "rejected_text": ["r"]}

    source = dataset_source(Dataset.from_dict(columns | texts), has_pairs=True)

    assert source.has_pairs
    assert rows(source) == [
        [
            Recording("000000000/prompt", paths[0], text="p"),
            Recording("000000000/chosen", paths[1], text="c"),
            Recording("000000000/rejected", paths[2], text="r"),
        ]
    ]


def test_another_dataset_has_another_identity(paths):
    source = dataset_source(Dataset.from_dict({"audio": paths}))

    assert dataset_source(Dataset.from_dict({"audio": paths})).identity == source.identity
    assert dataset_source(Dataset.from_dict({"audio": paths[:2]})).identity != source.identity
    assert dataset_source(Dataset.from_dict({"audio": paths}), identity={"revision": "1"}).identity != source.identity


def test_a_missing_column_is_an_error(paths):
    with pytest.raises(ValueError, match=r"The dataset has no column 'audio'; it has \['speech'\]"):
        dataset_source(Dataset.from_dict({"speech": paths}))


def test_speakers_and_styles_are_columns(paths):
    dataset = Dataset.from_dict({"audio": paths, "who": [7, 8, None], "how": ["calm", "loud", "calm"]})
    *named, missing = rows(dataset_source(dataset, label_columns={"speaker": "who", "style": "how"}))
    assert [(row.speaker, row.style) for (row,) in named] == [("7", "calm"), ("8", "loud")]
    assert missing == [Skipped("000000002", SkipReason.MALFORMED, "no 'who', the column of the speaker")]
    with pytest.raises(ValueError, match=r"The dataset has no column 'speaker'; it has \['audio', 'how', 'who'\]"):
        dataset_source(dataset, label_columns={"speaker": "speaker"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": [["go"]]}, "Column 'text' holds List.*: expected text"),
        ({"aligned_text": [[["go", "0"]]]}, "Column 'aligned_text' holds List.*: expected a list of"),
        ({"aligned_text": [[{"word": "go"}]]}, "Column 'aligned_text' holds List.*: expected a list of"),
    ],
)
def test_texts_of_another_kind_are_an_error(paths, columns, message):
    with pytest.raises(ValueError, match=message):
        dataset_source(Dataset.from_dict({"audio": paths[:1], **columns}))


def test_a_column_of_samples_is_an_error():
    with pytest.raises(ValueError, match=r"Column 'audio' holds List.*: expected audio files"):
        dataset_source(Dataset.from_dict({"audio": [[0.0, 1.0]]}))
