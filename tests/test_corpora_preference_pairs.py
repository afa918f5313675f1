import pytest

from slam_hf.corpora.preference_pairs import as_unit_string, make_pair, pair_rows
from slam_hf.encoding.recordings import Skipped, SkipReason


def clip(id, units, text=None):
    return {"id": id, "units": units, "text": text}


def test_units_become_text():
    assert as_unit_string([3, 49, 7]) == as_unit_string("<Un3><Un49><Un7>") == "<Un3><Un49><Un7>"


def test_a_continuation_does_not_repeat_the_last_unit_of_its_prompt():
    pair = make_pair("7", clip("p", [1, 2], "a"), clip("c", [2, 3], "b"), clip("r", [4, 2], "c"))

    assert pair == {
        "id": "7",
        "prompt": "<Un1><Un2>",
        "chosen": "<Un3>",
        "rejected": "<Un4><Un2>",
        "prompt_text": "a",
        "chosen_text": "b",
        "rejected_text": "c",
    }


def test_rows_of_clips_make_pairs():
    rows = [
        clip(f"{pair}/{name}", [pair, name_number])
        for pair in (0, 1)
        for name_number, name in enumerate(["prompt", "chosen", "rejected"], start=2)
    ]

    pairs, lacking = pair_rows(rows, [])

    assert [(pair["id"], pair["prompt"], pair["chosen"], pair["rejected"]) for pair in pairs] == [
        ("0", "<Un0><Un2>", "<Un0><Un3>", "<Un0><Un4>"),
        ("1", "<Un1><Un2>", "<Un1><Un3>", "<Un1><Un4>"),
    ]
    assert lacking == []


@pytest.mark.parametrize(
    ("rows", "skipped", "detail"),
    [
        (
            [clip("0/prompt", [1]), clip("0/rejected", [2])],
            [Skipped("0/chosen", SkipReason.SILENT, "all zeros")],
            "a clip was skipped",
        ),
        ([], [Skipped(f"0/{name}", SkipReason.EMPTY, "") for name in ("prompt", "chosen")], "a clip was skipped"),
        (
            [clip(f"0/{name}", [1]) for name in ("prompt", "chosen", "rejected#t=0,40", "rejected#t=40")],
            [],
            "a clip is longer than a piece",
        ),
        (
            [clip("0/prompt", [1, 2]), clip("0/chosen", [2]), clip("0/rejected", [3])],
            [],
            "a continuation adds no unit to the prompt",
        ),
    ],
)
def test_pairs_that_lack_a_clip_are_skipped(rows, skipped, detail):
    assert pair_rows(rows, skipped) == ([], [Skipped("0", SkipReason.INCOMPLETE, detail)])
