"""LibriSpeech (https://www.openslr.org/12) as it is unpacked: chapters of utterances with a transcript."""

import posixpath
from collections import defaultdict

import datasets
import pyarrow as pa

from slam_hf.corpora.builders.bases import NamedDataset
from slam_hf.encoding.listing import LIBRISPEECH_NAME, parse_librispeech_transcript


class LibriSpeech(NamedDataset, datasets.ArrowBasedBuilder):
    """Utterances of read speech with their texts."""

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            features=datasets.Features(
                {
                    "id": datasets.Value("string"),
                    "audio": datasets.Audio(sampling_rate=16_000, decode=False),
                    "text": datasets.Value("string"),
                    "speaker_id": datasets.Value("int64"),
                    "chapter_id": datasets.Value("int64"),
                }
            ),
            homepage="https://www.openslr.org/12",
            license="CC BY 4.0",
        )

    def _split_generators(self, dl_manager):
        splits = []
        for split, names in self.config.data_files.items():
            chapters = defaultdict(dict)
            for name, path in zip(names, dl_manager.download(list(names)), strict=True):
                chapters[posixpath.dirname(name)][posixpath.basename(name)] = path
            if not any(_is_utterance(name) for files in chapters.values() for name in files):
                raise ValueError(f"'{split}' has no utterance of LibriSpeech: pass its folder as `data_dir`.")
            splits.append(datasets.SplitGenerator(name=split, gen_kwargs={"chapters": list(chapters.values())}))
        return splits

    def _generate_tables(self, chapters):
        for number, files in enumerate(chapters):
            texts = {}
            for name, path in files.items():
                if name.endswith(".trans.txt"):
                    with open(path, encoding="utf-8-sig") as file:
                        texts |= parse_librispeech_transcript(file)
            rows = [_as_row(name, path, texts) for name, path in sorted(files.items()) if _is_utterance(name)]
            if rows:
                table = pa.Table.from_pylist(rows, schema=self.info.features.arrow_schema)
                yield datasets.builder.Key(number, 0), table


def _is_utterance(name):
    stem, extension = posixpath.splitext(name)
    return extension == ".flac" and LIBRISPEECH_NAME.fullmatch(stem) is not None


def _as_row(name, path, texts):
    id = posixpath.splitext(name)[0]
    match = LIBRISPEECH_NAME.fullmatch(id)
    return {
        "id": id,
        "audio": {"bytes": None, "path": path},
        "text": texts.get(id),
        "speaker_id": int(match["speaker"]),
        "chapter_id": int(match["chapter"]),
    }
