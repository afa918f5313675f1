from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset, IterableDataset
from transformers import GPTNeoXConfig, LlamaConfig, OPTConfig, Qwen2Config

from slam_hf import SpeechLMConfig, SpeechLMForCausalLM
from slam_hf.training.packing import (
    PackingCollator,
    pack_documents,
    refill_sequences,
    separate_documents,
)


BASES = {
    "qwen2": Qwen2Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    ),
    "llama": LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4),
    "opt": OPTConfig(
        hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=16, dropout=0.0
    ),
    "gpt_neox": GPTNeoXConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4),
}


def speech_lm(base: str, attn_implementation: str = "sdpa") -> SpeechLMForCausalLM:
    torch.manual_seed(0)
    config = SpeechLMConfig(
        base_config={**BASES[base].to_dict(), "initializer_range": 0.3, "init_std": 0.3}, vocab_size=52
    )
    return SpeechLMForCausalLM._from_config(config, attn_implementation=attn_implementation)


def librispeech_lengths(count: int) -> np.ndarray:
    """Tokens of utterances of about LibriSpeech's durations: a third of 2 to 12 s, most 13 to 16 s, few up to 35 s."""
    generator = np.random.default_rng(0)
    seconds = np.concatenate(
        [
            generator.uniform(2, 12, count * 36 // 100),
            generator.normal(14.7, 1.3, count * 57 // 100),
            generator.uniform(16, 35, count * 7 // 100),
        ]
    )
    return (generator.permutation(seconds) * 20.3).astype(int)


def numbered_documents(lengths: np.ndarray) -> Dataset:
    """Documents in which every token is another number, as far as 16 bits can tell."""
    numbers = np.arange(lengths.sum(), dtype=np.uint16)
    return Dataset.from_dict({"input_ids": np.split(numbers, np.cumsum(lengths)[:-1])})


def test_documents_stay_whole_where_they_fit_and_are_cut_where_they_are_too_long():
    documents = Dataset.from_dict({"input_ids": [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11, 12]]})
    packed = pack_documents(documents, context_length=4)
    assert packed[:] == {
        "input_ids": [[1, 2, 3, 4], [9, 10, 11, 12], [5, 6, 7, 8]],
        "seq_lengths": [[4], [4], [2, 2]],
    }


def test_sequences_that_are_too_empty_are_refilled():
    sparse = pa.table(
        {"input_ids": [[1, 2, 3], [4, 5, 6, 7], [8, 9, 10], [11]], "seq_lengths": [[3], [1, 3], [1, 2], [1]]}
    )
    assert refill_sequences(sparse, context_length=4).to_pydict() == {
        "input_ids": [[4, 5, 6, 7], [1, 2, 3, 8], [9, 10, 11]],
        "seq_lengths": [[1, 3], [3, 1], [2, 1]],
    }


@pytest.mark.parametrize("lengths", [librispeech_lengths(3000), np.full(2000, 600), np.full(300, 3000)])
@pytest.mark.parametrize("streaming", [False, True])
def test_sequences_are_full_and_every_token_is_in_one(lengths, streaming):
    documents = numbered_documents(lengths)
    packed = list(pack_documents(documents.to_iterable_dataset() if streaming else documents, context_length=1024))
    tokens = [token for sequence in packed for token in sequence["input_ids"]]
    assert Counter(tokens) == Counter(token for document in documents["input_ids"] for token in document)
    assert all(sum(sequence["seq_lengths"]) == len(sequence["input_ids"]) <= 1024 for sequence in packed)
    assert len(tokens) / (len(packed) * 1024) >= 0.98


@pytest.mark.parametrize("lengths", [librispeech_lengths(3000), np.full(2000, 600), np.array([3000, 1024, 5, 1025])])
@pytest.mark.parametrize("streaming", [False, True])
def test_documents_that_fit_can_stay_whole(lengths, streaming):
    documents = numbered_documents(lengths)
    if streaming:
        documents = documents.to_iterable_dataset()
    sequences = list(pack_documents(documents, context_length=1024, cut_documents=False))
    expected = [piece for length in lengths for piece in [1024] * (length // 1024) + [length % 1024] if piece]
    assert Counter(length for sequence in sequences for length in sequence["seq_lengths"]) == Counter(expected)
    tokens = [token for sequence in sequences for token in sequence["input_ids"]]
    assert Counter(tokens) == Counter(np.arange(lengths.sum(), dtype=np.uint16).tolist())
    assert all(sum(sequence["seq_lengths"]) == len(sequence["input_ids"]) <= 1024 for sequence in sequences)


def test_pieces_of_a_document_keep_its_order():
    lengths = np.array([5, 9, 3, 20, 7, 1, 6])
    packed = pack_documents(numbered_documents(lengths), context_length=8)
    starts = np.append(0, np.cumsum(lengths))
    for sequence in packed:
        for piece in np.split(np.array(sequence["input_ids"]), np.cumsum(sequence["seq_lengths"])[:-1]):
            document = np.searchsorted(starts, piece[0], side="right")
            np.testing.assert_array_equal(piece, np.arange(piece[0], piece[0] + len(piece)))
            assert piece[-1] < starts[document]


def test_collator_restarts_positions_and_predicts_no_first_token():
    batch = PackingCollator(context_length=6)(
        [{"input_ids": [1, 5, 1, 7], "seq_lengths": [3, 1]}, {"input_ids": [1, 2, 3, 4, 5, 6], "seq_lengths": [6]}]
    )
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[1, 5, 1, 7, 0, 0], [1, 2, 3, 4, 5, 6]],
        "position_ids": [[0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5]],
        "labels": [[-100, 5, 1, -100, -100, -100], [-100, 2, 3, 4, 5, 6]],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_token_with_the_id_of_the_padding_is_a_target():
    """In a vocabulary of text, id 0 is a token."""
    batch = PackingCollator(context_length=5)([{"input_ids": [0, 7, 0], "seq_lengths": [3]}])
    assert batch["labels"].tolist() == [[-100, 7, 0, -100, -100]]


@pytest.mark.parametrize(
    "base_config",
    [
        {"model_type": "mamba", "hidden_size": 16, "state_size": 4, "num_hidden_layers": 1},
        {"model_type": "bloom", "hidden_size": 16, "n_layer": 1, "n_head": 2},
        BASES["qwen2"].to_dict(),
    ],
    ids=lambda base_config: base_config["model_type"],
)
def test_without_packing_any_model_trains_on_its_documents_alone(base_config):
    torch.manual_seed(0)
    model = SpeechLMForCausalLM(SpeechLMConfig(base_config=base_config, vocab_size=52))
    documents = [[1, 5, 9, 1], [1, 7, 8, 9, 10, 20, 1]]
    rows = separate_documents(Dataset.from_dict({"input_ids": documents}), context_length=8)
    batch = PackingCollator(context_length=8, packing=False)(rows)
    assert batch.keys() == {"input_ids", "labels"}
    alone = [
        model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        for ids in map(torch.tensor, ([document] for document in documents))
    ]
    assert model(**batch).loss.item() == pytest.approx(sum(alone) / 9, abs=1e-5)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_packed_loss_is_the_token_weighted_loss_of_the_documents_alone(base, attn_implementation):
    model = speech_lm(base, attn_implementation)
    generator = np.random.default_rng(1)
    documents = [generator.integers(1, 52, length) for length in (3, 17, 9, 12, 30, 5, 8)]
    packed = pack_documents(Dataset.from_dict({"input_ids": documents}), context_length=32)
    batch = PackingCollator(context_length=32)(packed)
    assert len(batch["input_ids"]) == 3
    targets = sum(len(document) - 1 for document in documents)
    assert (batch["labels"] != -100).sum() == targets

    alone = [
        model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        for ids in (torch.from_numpy(document)[None] for document in documents)
    ]
    assert model(**batch).loss.item() == pytest.approx(sum(alone) / targets, abs=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_flex_attention_keeps_documents_apart():
    # After the shapes of other tests, PyTorch would compile it for any shape, which it cannot do on a CPU.
    torch.compiler.reset()
    lengths = np.array([14, 16, 11, 20, 4, 31])
    documents = np.split(np.random.default_rng(1).integers(1, 52, lengths.sum()), np.cumsum(lengths)[:-1])
    batch = PackingCollator(context_length=32)(pack_documents(Dataset.from_dict({"input_ids": documents}), 32))
    expected = speech_lm("qwen2")(**batch).loss
    torch.testing.assert_close(speech_lm("qwen2", "flex_attention")(**batch).loss, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_packed_documents_are_apart_when_compiled():
    model = speech_lm("qwen2")
    generator = np.random.default_rng(1)
    documents = [generator.integers(1, 52, length) for length in (14, 16, 11, 20, 4, 31)]
    batch = PackingCollator(context_length=32)(
        pack_documents(Dataset.from_dict({"input_ids": documents}), context_length=32)
    )
    expected = model(**batch).loss
    torch.testing.assert_close(torch.compile(model)(**batch).loss, expected, atol=1e-5, rtol=0)


def test_streams_are_packed_lazily():
    def endless():
        while True:
            yield {"input_ids": [1, 2, 3]}

    stream = pack_documents(IterableDataset.from_generator(endless), context_length=6)
    assert next(iter(stream)) == {"input_ids": [1, 2, 3, 1, 2, 3], "seq_lengths": [3, 3]}


@pytest.mark.parametrize("streaming", [False, True])
def test_separate_documents_have_sequences_of_their_own_and_are_cut(streaming):
    documents = Dataset.from_dict({"input_ids": [[1, 5, 6, 1], [1, 7, 8, 9, 10, 1]]})
    if streaming:
        documents = documents.to_iterable_dataset()
    assert list(separate_documents(documents, context_length=5)) == [
        {"input_ids": [1, 5, 6, 1], "seq_lengths": [4]},
        {"input_ids": [1, 7, 8, 9, 10], "seq_lengths": [5]},
    ]
