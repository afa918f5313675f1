"""The rows that encoding gives: one for each piece of a recording, whose id says where in the recording it lies."""

import re

import pyarrow as pa


UNIT_ROW_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "units": pa.list_(pa.uint16()),
        "durations": pa.list_(pa.uint16()),
        "num_frames": pa.int32(),
        "text": pa.string(),
        "aligned_text": pa.list_(
            pa.struct({"word": pa.string(), "start_time": pa.float64(), "end_time": pa.float64()})
        ),
    }
)
"""A row has the units of a piece, deduplicated (no two neighbours are equal), `durations` in frames, and `num_frames`,
their sum. `text` and `aligned_text` (times in seconds from the start of the piece) may be null."""

VOICE_ROW_SCHEMA = pa.schema(
    [
        *UNIT_ROW_SCHEMA,
        pa.field("speaker", pa.string()),
        pa.field("style", pa.string()),
        pa.field("audio", pa.binary()),
    ]
)
"""A row also has the audio of its frames, as 16-bit samples at the codec's sampling rate, and who speaks in which
style, which may be null."""

_FRAGMENT = re.compile(r"#t=(?P<start>\d+(?:\.\d*)?)?(?:,(?P<end>\d+(?:\.\d*)?))?$", re.ASCII)


def piece_id(source: str, start: float | None, end: float | None) -> str:
    """Id of a piece of a recording: the recording's id and, unless it is the whole recording, the piece's position in
    seconds, as a media fragment (W3C Media Fragments URI 1.0, section 4.2.1): `book/01.flac#t=12.04,43.52`.

    `None` stands for the beginning and the end of the recording. The position of an excerpt gives way to the piece's.
    """
    if start is None and end is None:
        return source
    source = parse_piece_id(source)[0]
    return f"{source}#t={_seconds(start or 0.0)}" + ("" if end is None else f",{_seconds(end)}")


def parse_piece_id(id: str) -> tuple[str, float, float | None]:
    """Source, start and end in seconds of a row's id; the end is `None` for a piece that reaches the source's end."""
    match = _FRAGMENT.search(id)
    if match is None or match["start"] is None:
        return id, 0.0, None
    return id[: match.start()], float(match["start"]), float(match["end"]) if match["end"] else None


def _seconds(value: float) -> str:
    return f"{value:.7f}".rstrip("0").rstrip(".")
