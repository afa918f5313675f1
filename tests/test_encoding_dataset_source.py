from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, IterableDataset, load_dataset

from slam_hf.encoding import dataset_source as module
from slam_hf.encoding.dataset_source import dataset_source
from slam_hf.encoding.recordings import Recording


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
