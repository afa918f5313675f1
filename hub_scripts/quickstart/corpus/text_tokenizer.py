"""Trains the text tokenizer of the quickstart: byte-level BPE on the texts of its corpus."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


VOCAB_SIZE = 2_000

PAD_TOKEN, BOUNDARY_TOKEN = "<PAD>", "<S>"


def train_text_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of 2,000 tokens that puts `<S>` in front of a text. Id 0 is padding and never a token of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD_TOKEN, BOUNDARY_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOUNDARY_TOKEN} $A", pair=f"{BOUNDARY_TOKEN} $A $B", special_tokens=[(BOUNDARY_TOKEN, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        bos_token=BOUNDARY_TOKEN,
        eos_token=BOUNDARY_TOKEN,
        clean_up_tokenization_spaces=False,
    )


def save_text_tokenizer(texts: Iterable[str], folder: Path) -> int:
    """Train the tokenizer and write its two files to a folder; its number of tokens."""
    tokenizer = train_text_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
