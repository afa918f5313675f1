import pytest

from slam_hf.encoding.unit_rows import parse_piece_id, piece_id


@pytest.mark.parametrize(
    ("source", "start", "end", "expected"),
    [
        ("a/b.flac", None, None, "a/b.flac"),
        ("a/b.flac", 12.04, 43.52, "a/b.flac#t=12.04,43.52"),
        ("a/b.flac", None, 40.0, "a/b.flac#t=0,40"),
        ("a/b.flac", 40.0, None, "a/b.flac#t=40"),
        ("a/b.flac#t=100,160", 140.0, 160.0, "a/b.flac#t=140,160"),
        ("a#t.flac", 1 / 3, None, "a#t.flac#t=0.3333333"),
    ],
)
def test_piece_id_is_the_source_with_a_media_fragment(source, start, end, expected):
    assert piece_id(source, start, end) == expected


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("a/b.flac", ("a/b.flac", 0.0, None)),
        ("a/b.flac#t=12.04,43.52", ("a/b.flac", 12.04, 43.52)),
        ("a/b.flac#t=40", ("a/b.flac", 40.0, None)),
        ("a#t.flac", ("a#t.flac", 0.0, None)),
    ],
)
def test_parse_piece_id_gives_the_source_and_its_position(id, expected):
    assert parse_piece_id(id) == expected
