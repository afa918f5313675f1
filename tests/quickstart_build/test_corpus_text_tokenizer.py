import json

import pyarrow.parquet as pq
import pytest
from quickstart.corpus.text_tokenizer import train_text_tokenizer
from transformers import AutoTokenizer

from slam_hf.quickstart import QUICKSTART


@pytest.fixture(scope="module")
def texts() -> list[str]:
    files = [QUICKSTART / "corpus" / part / "train.parquet" for part in ("sentences", "stories")]
    return [text for file in files for text in pq.read_table(file)["text"].to_pylist()]


def test_the_embedded_tokenizer_is_that_of_the_embedded_texts(texts, tmp_path):
    train_text_tokenizer(texts).save_pretrained(tmp_path)
    built, embedded = (
        json.loads((folder / "tokenizer.json").read_text()) for folder in (tmp_path, QUICKSTART / "tokenizer")
    )
    assert built == embedded


def test_texts_come_back_and_begin_with_the_boundary(texts):
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "tokenizer")
    assert (len(tokenizer), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (2000, 0, 1, 1)
    for text in [*texts[:20], texts[-1], "Ünïcode, 7 <PA D>"]:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == 1 and 0 not in ids
        assert tokenizer.decode(ids[1:]) == text
