"""Tiny models with random weights that hear and judge continuations."""

import json

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)


LETTERS = list("abcdefghij")

WAV2VEC2 = {
    "vocab_size": 12,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "initializer_range": 0.5,  # or the embeddings are almost zero
}


def save_recogniser(folder) -> None:
    """A tiny wav2vec 2.0 that hears random letters."""
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(["<pad>", "|", *LETTERS])}))
    tokenizer = Wav2Vec2CTCTokenizer(
        folder / "vocab.json", unk_token="<pad>", pad_token="<pad>", bos_token=None, eos_token=None
    )
    feature_extractor = Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=16000, return_attention_mask=False)
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(**WAV2VEC2, pad_token_id=0)).save_pretrained(folder)
    Wav2Vec2Processor(feature_extractor, tokenizer).save_pretrained(folder)


def save_text_lm(folder) -> None:
    """A tiny GPT-2 over letters."""
    backend = Tokenizer(WordLevel({token: id for id, token in enumerate(["<begin>", " ", *LETTERS])}, unk_token=" "))
    backend.pre_tokenizer = Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<begin>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_positions=512, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def save_instruct_lm(folder, reply: str | None = None) -> None:
    """A tiny GPT-2 over characters, with a chat template. It has random weights, or always writes one character."""
    tokens = ["<end>", "?", *map(chr, range(32, 127)), "\n"]
    vocabulary = {token: id for id, token in enumerate(dict.fromkeys(tokens))}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    tokenizer.chat_template = "{% for message in messages %}Q: {{ message.content }}\nA: {% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size = len(vocabulary)
    config = GPT2Config(
        vocab_size=size, n_positions=256, n_embd=size, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    if reply is not None:
        model.transformer.wte.weight.data = torch.eye(size)
        model.transformer.ln_f.weight.data.zero_()
        model.transformer.ln_f.bias.data = 10 * torch.eye(size)[vocabulary[reply]]
    model.save_pretrained(folder)
