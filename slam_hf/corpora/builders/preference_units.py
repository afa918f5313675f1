"""Preference pairs of units in Parquet or JSON lines, as TRL's `DPOTrainer` takes them."""

import pyarrow.parquet as pq

from slam_hf.corpora.builders.bases import ROWS_PER_TABLE, TablesOfRows
from slam_hf.corpora.json_lines import InvalidRowError, parse_json_lines
from slam_hf.corpora.preference_pairs import as_unit_string
from slam_hf.corpora.schema import PREFERENCE_FEATURES
from slam_hf.encoding.recordings import PAIR_CLIPS


class PreferenceUnits(TablesOfRows):
    """Pairs whose prompts and continuations are unit strings, unit lists, or the dictionaries that SlamKit writes."""

    FEATURES = PREFERENCE_FEATURES

    def read_rows(self, file, name):
        read = _read_parquet if name.endswith(".parquet") else parse_json_lines
        return ({"id": f"{number:09d}", **pair} for number, pair in enumerate(read(file, name, _as_pair)))


def _read_parquet(file, name, parse):
    batches = pq.ParquetFile(file).iter_batches(ROWS_PER_TABLE)
    for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
        try:
            yield parse(row)
        except ValueError as error:
            raise InvalidRowError(f"'{name}', row {number}: {error}") from error


def _as_pair(row):
    missing = [clip for clip in PAIR_CLIPS if not isinstance(row, dict) or row.get(clip) is None]
    if missing:
        raise ValueError(f"a pair needs {', '.join(PAIR_CLIPS)}, and has no {', '.join(missing)}.")
    pair = {} if row.get("id") is None else {"id": str(row["id"])}
    for clip in PAIR_CLIPS:
        units, text = row[clip], row.get(f"{clip}_text")
        if isinstance(units, dict):
            units = units.get("audio_repr", units.get("units"))
        if not isinstance(text, str | None):
            raise ValueError(f"`{clip}_text` is not text: {text!r}.")
        try:
            pair |= {clip: as_unit_string(units), f"{clip}_text": text}
        except ValueError as error:
            raise ValueError(f"`{clip}`: {error}") from error
    return pair
