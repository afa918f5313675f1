"""Preference pairs of units in Parquet or JSON lines, as TRL's `DPOTrainer` takes them."""

import itertools
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from slam_hf.corpora.preference_pairs import unit_string
from slam_hf.corpora.schema import PREFERENCE_FEATURES
from slam_hf.encoding.recordings import PAIR_CLIPS


ROWS_PER_TABLE = 1000


class PreferenceUnits(datasets.ArrowBasedBuilder):
    """Pairs whose prompts and continuations are unit strings, unit lists, or the dictionaries that SlamKit writes."""

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=PREFERENCE_FEATURES)

    def _split_generators(self, dl_manager):
        files = dl_manager.download(self.config.data_files)
        return [
            datasets.SplitGenerator(
                name=split, gen_kwargs={"paths": paths, "names": [str(name) for name in self.config.data_files[split]]}
            )
            for split, paths in files.items()
        ]

    def _generate_tables(self, paths, names):
        for path_number, (path, name) in enumerate(zip(paths, names, strict=True)):
            with open(path, "rb") as file:
                rows = _read_parquet(file) if name.endswith(".parquet") else map(json.loads, file)
                pairs = (_as_pair(row, f"{number:09d}") for number, row in enumerate(rows))
                for number in itertools.count():
                    batch = list(itertools.islice(pairs, ROWS_PER_TABLE))
                    if not batch:
                        break
                    table = pa.Table.from_pylist(batch, schema=PREFERENCE_FEATURES.arrow_schema)
                    yield datasets.builder.Key(path_number, number), table


def _read_parquet(file):
    for batch in pq.ParquetFile(file).iter_batches(ROWS_PER_TABLE):
        yield from batch.to_pylist()


def _as_pair(row, position):
    clips = {clip: _as_unit_string(row[clip]) for clip in PAIR_CLIPS}
    texts = {f"{clip}_text": row.get(f"{clip}_text") for clip in PAIR_CLIPS}
    return {"id": row.get("id", position), **clips, **texts}


def _as_unit_string(clip):
    if isinstance(clip, dict):
        clip = clip.get("audio_repr", clip.get("units"))
    return clip if isinstance(clip, str) else unit_string(clip)
