import pytest

from slam_hf.evaluation.journal import Journal


def test_results_of_all_processes_are_read_back(tmp_path):
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.add([("a", -1.5), ("b", {"units": [1, 2]})])
    second.add([("c", None)])
    assert Journal(tmp_path).results == {"a": -1.5, "b": {"units": [1, 2]}, "c": None}
    assert first.results == {"a": -1.5, "b": {"units": [1, 2]}}


def test_a_line_that_a_killed_process_did_not_finish_is_left_out(tmp_path):
    journal = Journal(tmp_path)
    journal.add([("a", 1.0)])
    journal.add([("b", 2.0)])
    path = next(tmp_path.glob("*.jsonl"))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert Journal(tmp_path).results == ({"a": 1.0} if length > whole.index(b"\n") else {})


@pytest.mark.parametrize(
    "line", [b"", b"{", b"3", b"null", b'"text"', b"\xff\xfe", b"\0\0\0", b'{"a": 1.0}{', b"[" * 100_000], ids=repr
)
def test_a_damaged_line_is_left_out_and_its_file_named(tmp_path, caplog, line):
    journal = Journal(tmp_path)
    journal.add([("a", 1.0)])
    journal.add([("b", 2.0)])
    (path,) = tmp_path.glob("*.jsonl")
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, line, second, b""]))
    assert Journal(tmp_path).results == {"a": 1.0, "b": 2.0}
    assert f"Damaged lines in '{path}': 1. Their results are computed again." in caplog.text


def test_floats_are_kept_exactly(tmp_path):
    Journal(tmp_path).add([("a", 0.1 + 0.2), ("b", float("-inf"))])
    assert Journal(tmp_path).results == {"a": 0.1 + 0.2, "b": float("-inf")}
