from pathlib import Path

import pytest
from huggingface_hub import ModelCard


CARDS = sorted((Path(__file__).parents[1] / "model_cards").glob("*.md"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_metadata_and_text_give_the_same_results(path):
    card = ModelCard.load(path)
    rows = [line.strip("| ").split(" | ") for line in card.text.splitlines() if line.startswith("| ")]
    table = {name: float(value) for name, value in rows[1:]}
    assert {result.dataset_name: result.metric_value for result in card.data.eval_results} == table
    assert len(table) == 5
    assert all("reported by the paper" in result.source_name for result in card.data.eval_results)
