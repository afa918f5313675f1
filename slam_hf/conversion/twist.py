"""Reads the speech language models of TWIST (https://huggingface.co/papers/2305.13009)."""

import copy
import os

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ..configuration_speech_lm import SpeechLMConfig
from ..loading_utils import naming_damaged_files
from ..modeling_speech_lm import SpeechLMForCausalLM


def read_twist(folder: str | os.PathLike, num_units: int | None = None) -> SpeechLMForCausalLM:
    r"""
    Read an unpacked model of `https://dl.fbaipublicfiles.com/textless_nlp/twist/lms/`: a causal LM of transformers
    (OPT, Llama) with the id of unit 0 as `offset` in `config.json`, as used in
    https://github.com/facebookresearch/textlesslib (`examples/twist/speech_lm.py`).

    The rows of the embedding and of the head are reordered for [`HubertUnitTokenizer`]: the padding token, the
    end-of-sequence token, then the units. TWIST puts no token in front of the units: use a tokenizer with
    `add_bos_token=False`.

    Args:
        folder (`str` or `os.PathLike`):
            The folder.
        num_units (`int`, *optional*):
            Number of units. Defaults to all ids from `offset` on.

    Returns:
        [`SpeechLMForCausalLM`], in evaluation mode.

    Raises:
        ValueError: `config.json` has no `offset`, the special tokens are among the units, or a file is damaged.
    """
    with naming_damaged_files(folder):
        config = AutoConfig.from_pretrained(folder)
    offset = getattr(config, "offset", None)
    if not isinstance(offset, int):
        raise ValueError(f"'{folder}': config.json has no `offset`, the id of unit 0, as the models of TWIST do.")
    if num_units is None:
        num_units = config.vocab_size - offset
    eos = config.eos_token_id
    pad = eos if config.pad_token_id is None else config.pad_token_id
    units = range(offset, offset + num_units)
    if not isinstance(eos, int) or any(not 0 <= i < config.vocab_size or i in units for i in (eos, pad)):
        raise ValueError(
            f"'{folder}': the padding token {pad} and the end-of-sequence token {eos} must be ids besides the units, "
            f"{units.start} to {units.stop - 1}, of {config.vocab_size} in all."
        )
    if num_units < 1 or units.stop > config.vocab_size:
        raise ValueError(f"'{folder}': there are no {num_units} units from {offset} on, of {config.vocab_size} ids.")
    with naming_damaged_files(folder):
        lm = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return _reorder(lm, torch.tensor([pad, eos, *units]))


def _reorder(lm: torch.nn.Module, ids: torch.Tensor) -> SpeechLMForCausalLM:
    """The model whose token `i` is token `ids[i]` of `lm`."""
    base_config = copy.deepcopy(lm.config).to_dict()
    del base_config["offset"]
    base_config["_name_or_path"] = ""  # a path of this machine
    config = SpeechLMConfig(base_config=base_config, twist_init=True, vocab_size=len(ids))
    rows = {id(lm.get_input_embeddings().weight), id(lm.get_output_embeddings().weight)}
    names = {name for name, weight in lm.named_parameters(remove_duplicate=False) if id(weight) in rows}
    state = {name: weight[ids] if name in names else weight for name, weight in lm.state_dict().items()}
    model = SpeechLMForCausalLM._from_config(config, dtype=lm.dtype)
    model.lm.load_state_dict(state)
    return model.eval()
