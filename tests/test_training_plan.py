import pytest
from datasets import Dataset
from training_utils import tiny_speech_lm
from transformers import TrainingArguments

from slam_hf import SpeechLMConfig
from slam_hf.training.arguments import PretrainArguments
from slam_hf.training.packing import pack_documents
from slam_hf.training.plan import (
    BYTES_PER_TRAINED_PARAMETER,
    _activation_bytes_per_token,
    describe_plan,
    tokens_per_step,
)


SEQUENCES = Dataset.from_dict({"input_ids": [[1] * 90] * 30, "seq_lengths": [[50, 40]] * 30})
PARAMETERS = tiny_speech_lm().num_parameters()


def plan(
    sequences=SEQUENCES,
    model=None,
    *,
    max_train_tokens=None,
    max_train_hours=None,
    cut_documents=True,
    **training_args,
):
    budget = {"max_train_tokens": max_train_tokens, "max_train_hours": max_train_hours}
    args = PretrainArguments(context_length=100, cut_documents=cut_documents, **budget)
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "use_cpu": True, **training_args}
    text = describe_plan(args, TrainingArguments(**settings), model or tiny_speech_lm(), sequences)
    return dict(line.split(maxsplit=1) for line in text.splitlines())


def test_a_plan_of_steps():
    assert plan(max_steps=50) == {
        "parameters": f"{PARAMETERS:,}",
        "batch": "8 packed sequences of 100 tokens, on 1 process(es): 800 tokens per step",
        "length": f"50 steps, 40,000 tokens with padding, {40_000 * 6 * PARAMETERS:.2e} FLOPs",
        "memory": "0.00 GiB for weights, gradients and optimizer, about 0.00 GiB for activations, on each process "
        "(without sharding and checkpointing)",
        "data": "30 packed sequences per epoch, 90.0% full, 0.00 cuts per document",
    }


def test_documents_that_are_cut_are_counted():
    documents = Dataset.from_dict({"input_ids": [[1, *[7] * 28, 1]] * 4})
    whole, cut = (pack_documents(documents, length) for length in (30, 40))
    assert plan(whole, max_steps=50)["data"] == "4 packed sequences per epoch, 30.0% full, 0.00 cuts per document"
    # 30 + 10 | 20 + 20 | 10 + 30
    assert plan(cut, max_steps=50)["data"] == "3 packed sequences per epoch, 40.0% full, 0.50 cuts per document"


def test_epochs_are_steps():
    assert plan(num_train_epochs=3)["length"].startswith("12 steps, 9,600 tokens")


def test_a_plan_of_tokens():
    length = plan(max_train_tokens=10_000)["length"]
    assert length == f"10,000 tokens, {10_000 * 6 * PARAMETERS:.2e} FLOPs, 13 steps or a few more"


def test_a_plan_of_tokens_in_sequences_that_are_not_full():
    whole = {"max_train_tokens": 10_000, "cut_documents": False}
    sequences = Dataset.from_dict({"input_ids": [[1] * 60] * 30, "seq_lengths": [[60]] * 30})
    assert plan(sequences, **whole)["length"].endswith("FLOPs, 21 steps or so")
    assert plan(sequences.to_iterable_dataset(), **whole)["length"].endswith("FLOPs, 13 steps or more")


def test_a_plan_of_time():
    assert plan(max_train_hours=24)["length"] == "as many steps as fit into 24 h, known after the first steps"


def test_a_plan_says_what_a_time_costs():
    def cost(**budget):
        args = PretrainArguments(price_per_hour=2.5, **budget)
        text = describe_plan(args, TrainingArguments(max_steps=5, use_cpu=True), tiny_speech_lm(), SEQUENCES)
        return dict(line.split(maxsplit=1) for line in text.splitlines())["cost"]

    assert cost(max_train_hours=24) == "60.00 for 24 h, at 2.5 an hour"
    assert cost() == "known after the first steps, at 2.5 an hour"
    with pytest.raises(ValueError, match="`price_per_hour` must be positive, got -1"):
        PretrainArguments(price_per_hour=-1)


def test_the_plan_of_speech_and_text_has_their_shares(tmp_path):
    modalities = {"text": 1, "interleaved": 2, "speech": 1}
    datasets = [{"path": str(tmp_path), "modality": name, "weight": share} for name, share in modalities.items()]
    args = PretrainArguments(datasets=datasets, max_train_tokens=10)
    text = describe_plan(args, TrainingArguments(use_cpu=True), tiny_speech_lm(), SEQUENCES.to_iterable_dataset())
    assert text.splitlines()[-1] == "data        25.0% text, 50.0% interleaved, 25.0% speech, of the tokens"


def test_text_without_a_boundary_has_no_cuts_to_count():
    documents = Dataset.from_dict({"input_ids": [[7] * 30] * 4})
    assert plan(pack_documents(documents, 40), max_steps=50)["data"] == "3 packed sequences per epoch, 40.0% full"


def test_the_plan_of_a_stream_says_nothing_about_its_data():
    assert "data" not in plan(SEQUENCES.to_iterable_dataset(), max_steps=50)


def test_frozen_parameters_are_not_counted_as_trained():
    model = tiny_speech_lm()
    model.get_input_embeddings().requires_grad_(False)
    trained = PARAMETERS - model.get_input_embeddings().weight.numel()
    assert plan(model=model, max_steps=50)["parameters"] == f"{PARAMETERS:,}, {trained:,} of them trained"


def test_memory_of_the_slam_model():
    gib = 358_347_904 * BYTES_PER_TRAINED_PARAMETER / 2**30
    assert gib == pytest.approx(5.34, abs=0.005)
    per_token = _activation_bytes_per_token(SpeechLMConfig().get_text_config(), bytes_per_value=2)
    assert per_token == 24 * (8 * 896 + 4 * 4864) * 2


def test_tokens_of_a_step():
    training_args = TrainingArguments(per_device_train_batch_size=8, gradient_accumulation_steps=16, use_cpu=True)
    assert tokens_per_step(PretrainArguments(context_length=1024), training_args) == 131_072
