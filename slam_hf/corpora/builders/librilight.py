"""Libri-Light (arXiv 1912.07875) as it is unpacked: chapters of audio books, each with a metadata file."""

import json
import posixpath

import datasets
import pyarrow as pa

from slam_hf.corpora.builders.bases import NamedDataset
from slam_hf.corpora.json_lines import InvalidRowError


class LibriLight(NamedDataset, datasets.ArrowBasedBuilder):
    """Long chapters of read speech without text, with their metadata."""

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            features=datasets.Features(
                {
                    "id": datasets.Value("string"),
                    "audio": datasets.Audio(sampling_rate=16_000, decode=False),
                    "speaker_id": datasets.Value("string"),
                    "book_id": datasets.Value("string"),
                    "title": datasets.Value("string"),
                    "snr": datasets.Value("float64"),
                    "voice_activity": datasets.List(datasets.List(datasets.Value("float64"))),
                }
            ),
            homepage="https://github.com/facebookresearch/libri-light",
        )

    def _split_generators(self, dl_manager):
        splits = []
        for split, names in self.config.data_files.items():
            paths = dict(zip(names, dl_manager.download(list(names)), strict=True))
            chapters = [
                (name, path, paths.get(posixpath.splitext(name)[0] + ".json"))
                for name, path in sorted(paths.items())
                if name.endswith(".flac")
            ]
            if not chapters:
                raise ValueError(f"'{split}' has no chapter of Libri-Light: pass its folder as `data_dir`.")
            splits.append(datasets.SplitGenerator(name=split, gen_kwargs={"chapters": chapters}))
        return splits

    def _generate_tables(self, chapters):
        for number, (name, path, metadata_path) in enumerate(chapters):
            metadata = b"{}"
            if metadata_path is not None:
                with open(metadata_path, "rb") as file:
                    metadata = file.read()
            try:
                row = _as_row(name, path, json.loads(metadata))
                table = pa.Table.from_pylist([row], self.info.features.arrow_schema)
            except (AttributeError, TypeError, ValueError) as error:
                raise InvalidRowError(f"'{metadata_path or name}' is not a file of Libri-Light: {error}") from error
            yield datasets.builder.Key(number, 0), table


def _as_row(name, path, metadata):
    speaker, book, chapter = posixpath.splitext(name)[0].split("/")[-3:]
    book_metadata = metadata.get("book_meta") or {}
    return {
        "id": f"{speaker}/{book}/{chapter}",
        "audio": {"bytes": None, "path": path},
        "speaker_id": metadata.get("speaker", speaker),
        "book_id": book_metadata.get("id"),
        "title": book_metadata.get("title"),
        "snr": metadata.get("snr"),
        "voice_activity": metadata.get("voice_activity"),
    }
