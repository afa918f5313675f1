import pytest

from slam_hf.metrics.salmon.salmon import SALMon


def test_parts_count_alike_by_hand():
    results = SALMon(keep_in_memory=True).compute(
        correct_scores=[-1.0, -1.0, -2.0, -3.0, -1.0],
        incorrect_scores=[-2.0, -2.0, -1.0, -3.0, -2.0],
        parts=["rir_consistency"] * 4 + ["bg_alignment"],
    )
    assert results["by_part"]["rir_consistency"]["accuracy"] == (1 + 1 + 0 + 0.5) / 4
    assert results["by_part"]["bg_alignment"] == {
        "accuracy": 1.0,
        "accuracy_interval": [1.0, 1.0],
        "num_pairs": 1,
    }
    assert results["accuracy"] == pytest.approx((0.625 + 1) / 2)
    assert (results["num_pairs"], results["num_ties"]) == (5, 1)
    low, high = results["by_part"]["rir_consistency"]["accuracy_interval"]
    assert results["accuracy_interval"] == pytest.approx([(low + 1) / 2, (high + 1) / 2], abs=0.07)
