import csv
from pathlib import Path

import pytest

from slam_hf.evaluation.benchmarks import Pair, read_salmon, read_sblimp, read_storycloze, read_swuggy


SYNTACTIC = ("id", "filename", "voice", "type", "subtype", "correct", "transcription")
LEXICAL = ("id", "filename", "voice", "frequency", "word", "phones", "length", "correct")


def write_gold(folder: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    with open(folder / "gold.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_sblimp_pairs_the_readings_of_a_voice(tmp_path):
    rows = [
        ("1", "aa", "A", "binding", "principle_A", "0", "himself likes him"),
        ("1", "bb", "A", "binding", "principle_A", "1", "he likes himself"),
        ("1", "cc", "B", "binding", "principle_A", "1", "he likes himself"),
        ("1", "dd", "B", "binding", "principle_A", "0", "himself likes him"),
        ("1", "ee", "A", "agreement", "number", "1", "they like"),
        ("1", "ff", "A", "agreement", "number", "0", "they likes"),
    ]
    write_gold(tmp_path, SYNTACTIC, rows)
    assert read_sblimp(tmp_path, ["aa", "bb", "cc", "dd", "ee", "ff", "unused"]) == [
        Pair("ee", "ff", {"type": "agreement", "subtype": "number", "id": "1", "voice": "A"}),
        Pair("bb", "aa", {"type": "binding", "subtype": "principle_A", "id": "1", "voice": "A"}),
        Pair("cc", "dd", {"type": "binding", "subtype": "principle_A", "id": "1", "voice": "B"}),
    ]


def test_sblimp_pairs_several_readings_of_one_voice_in_order(tmp_path):
    item = ("A", "binding", "principle_A")
    write_gold(tmp_path, SYNTACTIC, [("1", name, *item, correct, "") for name, correct in ("a1", "b0", "c1", "d0")])
    assert [(pair.correct, pair.incorrect) for pair in read_sblimp(tmp_path, "abcd")] == [("a", "b"), ("c", "d")]


def test_an_unpaired_item_of_sblimp_is_named(tmp_path):
    item = ("A", "binding", "principle_A")
    write_gold(
        tmp_path, SYNTACTIC, [("1", "aa", *item, "1", ""), ("2", "bb", *item, "1", ""), ("2", "cc", *item, "0", "")]
    )
    with pytest.raises(
        ValueError, match=r"1 items are not a pair .* 'binding/principle_A/1/A'\. A benchmark is scored"
    ):
        read_sblimp(tmp_path, ["aa", "bb", "cc"])


def test_a_missing_file_of_sblimp_is_named(tmp_path):
    item = ("1", "A", "binding", "principle_A")
    write_gold(
        tmp_path, ("filename", "id", "voice", "type", "subtype", "correct"), [("aa", *item, 1), ("bb", *item, 0)]
    )
    with pytest.raises(FileNotFoundError, match=r"1 utterances of gold.csv are missing: 'bb'"):
        read_sblimp(tmp_path, ["aa"])


def test_a_missing_gold_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gold.csv': no such file. Pass the folder of one split"):
        read_sblimp(tmp_path, ["aa"])


def test_a_gold_file_of_another_benchmark_is_refused(tmp_path):
    write_gold(tmp_path, LEXICAL, [("1", "aa", "A", "3", "cat", "k ae t", "3", "1")])
    with pytest.raises(ValueError, match=r"gold.csv': there is no column 'subtype', 'type'"):
        read_sblimp(tmp_path, ["aa"])


GOLD = "filename,id,voice,type,subtype,correct\naa,1,A,binding,x,1\nbb,1,A,binding,x,0\n"
GOLD_PAIR = Pair("aa", "bb", {"type": "binding", "subtype": "x", "id": "1", "voice": "A"})


@pytest.mark.parametrize(
    "content",
    [
        GOLD,
        "\ufeff" + GOLD,
        GOLD.replace("\n", "\r\n"),
        GOLD.replace("\n", "\n\n") + " \n,,,,,\n",
        GOLD.replace(",", ", "),
        GOLD.replace("filename,", "filename ,").replace("aa", '"aa"'),
    ],
    ids=["plain", "byte order mark", "Windows", "blank lines", "spaces", "quotes"],
)
def test_gold_files_of_spreadsheets_are_read(tmp_path, content):
    (tmp_path / "gold.csv").write_bytes(content.encode())
    assert read_sblimp(tmp_path, ["aa", "bb"]) == [GOLD_PAIR]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there is no column 'correct', 'filename', 'id', 'subtype', 'type', ... .line 0"),
        (GOLD.replace("correct", "right"), "there is no column 'correct' .line 1"),
        (GOLD.replace("bb,1,A", "bb,,A"), "a value is missing .line 3"),
        (GOLD.replace("x,0", "x,no"), "the column 'correct' must be 0 or 1, got 'no' .line 3"),
        (GOLD.replace("x,0", "x"), "the column 'correct' must be 0 or 1, got '' .line 3"),
        (GOLD.replace("bb", "b" * 200_000), "field larger than field limit"),
        (GOLD.encode("utf-16"), "can't decode byte"),
    ],
)
def test_gold_files_that_cannot_be_read_are_named_with_the_line(tmp_path, content, message):
    (tmp_path / "gold.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"gold.csv': .*{message}"):
        read_sblimp(tmp_path, ["aa", "bb"])


@pytest.mark.parametrize("frequency", ["many", "nan", "inf", "1e999"])
def test_a_frequency_that_is_not_a_number_is_named_with_the_line(tmp_path, frequency):
    write_gold(tmp_path, LEXICAL, [("1", "aa", "A", frequency, "cat", "", "3", "1")])
    with pytest.raises(ValueError, match=rf"gold.csv': .*'{frequency}'.* \(line 2\)"):
        read_swuggy(tmp_path, ["aa"])


def test_swuggy_pairs_words_and_reads_frequencies(tmp_path):
    rows = [
        ("7", "aa", "A", "12.0", "cat", "k ae t", "3", "1"),
        ("7", "bb", "A", "", "kat", "k ae d", "3", "0"),
        ("8", "dd", "A", "", "dag", "d ae g", "3", "0"),
        ("8", "cc", "A", "", "dog", "d ao g", "3", "1"),
    ]
    write_gold(tmp_path, LEXICAL, rows)
    assert read_swuggy(tmp_path, ["aa", "bb", "cc", "dd"]) == [
        Pair("aa", "bb", {"id": "7", "voice": "A", "frequency": 12}),
        Pair("cc", "dd", {"id": "8", "voice": "A", "frequency": None}),
    ]


def test_storycloze_pairs_are_found_by_their_names_and_ordered_by_number():
    names = ["10_incorrect", "2_correct", "10_correct", "2_incorrect"]
    assert read_storycloze("sSC", names) == [
        Pair("2_correct", "2_incorrect", {}),
        Pair("10_correct", "10_incorrect", {}),
    ]


def test_storycloze_in_subfolders():
    names = ["b/1_correct", "b/1_incorrect", "a/1_correct", "a/1_incorrect"]
    assert [pair.correct for pair in read_storycloze("sSC", names)] == ["a/1_correct", "b/1_correct"]


def test_storycloze_numbers_that_only_differ_in_zeros_are_different():
    with pytest.raises(ValueError, match=r"2 items are not a pair .* '01_correct', '1_incorrect'"):
        read_storycloze("sSC", ["01_correct", "1_incorrect"])


def test_an_unpaired_item_of_storycloze_is_named():
    with pytest.raises(
        ValueError, match=r"'sSC': 1 items are not a pair of a correct and an incorrect utterance: '3_inc"
    ):
        read_storycloze("sSC", ["2_correct", "2_incorrect", "3_incorrect"])


@pytest.mark.parametrize(
    ("names", "found"),
    [(["1_correct", "1_incorrect", "intro"], "1 are named otherwise: 'intro'"), ([], "there are none")],
)
def test_other_files_among_storycloze_are_named(names, found):
    with pytest.raises(ValueError, match=rf"names end in '\{{n\}}_correct' and '\{{n\}}_incorrect'; {found}"):
        read_storycloze("sSC", names)


def test_salmon_pairs_have_the_correct_one_first_and_their_part():
    names = [
        "rir_consistency/sample_0_1",
        "rir_consistency/sample_0_0",
        "bg_alignment/sample_3_0",
        "bg_alignment/sample_3_1",
    ]
    assert read_salmon("salmon", names) == [
        Pair("bg_alignment/sample_3_0", "bg_alignment/sample_3_1", {"part": "bg_alignment"}),
        Pair("rir_consistency/sample_0_0", "rir_consistency/sample_0_1", {"part": "rir_consistency"}),
    ]


def test_salmon_needs_the_folder_of_the_parts():
    with pytest.raises(ValueError, match="1 are named otherwise: 'sample_0_0'"):
        read_salmon("salmon/bg_alignment", ["sample_0_0"])
