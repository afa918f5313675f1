import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from slam_hf.conversion.gslm_scaling import read_gslm_scaling


FIXTURE = Path(__file__).parent / "fixtures" / "gslm-scaling"


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    """What the code of the paper's authors computes with a tiny random model: 50 units, 50 `<S>`, 51 padding."""
    return {name: torch.from_numpy(array) for name, array in np.load(FIXTURE / "reference.npz").items()}


def to_ids(theirs: torch.Tensor) -> torch.Tensor:
    return torch.where(theirs < 50, theirs + 2, 51 - theirs)


def test_logits_are_those_of_the_original(reference):
    model = read_gslm_scaling(FIXTURE)
    with torch.no_grad():
        logits = model(to_ids(reference["input_ids"])).logits
    expected = torch.cat([reference["logits"][..., [51, 50]], reference["logits"][..., :50]], dim=-1)
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=0)
    assert expected.std() > 1


def test_continuations_are_those_of_the_original(reference):
    model = read_gslm_scaling(FIXTURE)
    prompt = to_ids(reference["greedy"][:, :5])
    generated = model.generate(prompt, do_sample=False, max_new_tokens=20, eos_token_id=None)
    assert torch.equal(generated, to_ids(reference["greedy"]))


def test_other_formats_are_refused(tmp_path, published_checkpoint):
    with pytest.raises(ValueError, match="not of format 1 of `slm_scaling`"):
        read_gslm_scaling(published_checkpoint)
    folder = tmp_path / "model"
    shutil.copytree(FIXTURE, folder)
    config = json.loads((folder / "config.json").read_text())
    for key, value, error in (
        ("prefix_vocab_size", 10, "conditioned on a prefix"),
        ("n_layers", 3, "do not fit each other"),
        ("dim", None, "do not fit each other"),
    ):
        changed = {**config, "model_args": {**config["model_args"], key: value}}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=error):
            read_gslm_scaling(folder)


def test_damaged_weights_are_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FIXTURE, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors' is damaged or cut short"):
        read_gslm_scaling(folder)
