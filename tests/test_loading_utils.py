from types import SimpleNamespace

import pytest

from slam_hf import HubertUnitCodec, SpeechLMForCausalLM, loading_utils
from slam_hf.loading_utils import CommitMixin


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Resolved(str):
    resolved = COMMIT


class Base:
    @classmethod
    def from_pretrained(cls, name, revision, output_loading_info=False):
        model = SimpleNamespace(config=SimpleNamespace(), revision=revision)
        return (model, {}) if output_loading_info else model


class Model(CommitMixin, Base):
    pass


@pytest.mark.parametrize(
    ("resolved", "commit"),
    [(Resolved("main"), COMMIT), (COMMIT, COMMIT), ("main", None)],
    ids=["name", "commit", "lost"],
)
def test_the_commit_is_that_of_the_revision(monkeypatch, resolved, commit):
    monkeypatch.setattr(loading_utils, "resolve_revision", lambda name, revision, **access: resolved)
    model = Model.from_pretrained("user/model")
    assert model.config._commit_hash == commit
    assert model.revision is resolved  # nothing is resolved twice
    assert Model.from_pretrained("user/model", output_loading_info=True)[0].config._commit_hash == commit


def test_folders_have_no_commit(tiny_model, tiny_codec, tmp_path):
    for model_class, model in ((SpeechLMForCausalLM, tiny_model), (HubertUnitCodec, tiny_codec)):
        model.save_pretrained(tmp_path)
        assert model_class.from_pretrained(tmp_path, revision=COMMIT).config._commit_hash is None
