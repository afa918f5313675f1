import pytest
from training_utils import make_trainer
from transformers import EncodecFeatureExtractor, Trainer

from slam_hf import HubertUnitTokenizer, SpeechLMProcessor
from slam_hf.hub import publisher
from slam_hf.hub.publisher import Publisher


PROCESSOR = SpeechLMProcessor(EncodecFeatureExtractor(sampling_rate=16_000), HubertUnitTokenizer(num_units=50))
MODEL = {"config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json", "tokenizer.json"}


@pytest.fixture
def published(monkeypatch):
    """The commits that are made: the message, and the names of the files."""
    commits = []

    def publish_folder(folder, repo_id, message, **options):
        names = {path.name for path in folder.iterdir()}
        assert "modeling_speech_lm.py" in names  # for `trust_remote_code`
        commits.append((repo_id, message, {name for name in names if not name.endswith(".py")}))

    def init_hf_repo(trainer):
        trainer.hub_model_id = trainer.args.hub_model_id

    monkeypatch.setattr(publisher, "publish_folder", publish_folder)
    monkeypatch.setattr(Trainer, "init_hf_repo", init_hf_repo)
    return commits


def train(output_dir, **options):
    saving = {"push_to_hub": True, "hub_model_id": "user/model", "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(output_dir, max_steps=2, **saving, **options)
    publisher = Publisher(trainer, PROCESSOR)
    trainer.add_callback(publisher)
    trainer.train()
    trainer.save_model()
    PROCESSOR.save_pretrained(output_dir)
    publisher.publish(output_dir, trainer.args, "End of training")


@pytest.mark.parametrize(("strategy", "steps"), [("end", []), ("every_save", [1, 2])])
def test_only_the_files_of_the_model_are_published(tmp_path, published, strategy, steps):
    train(tmp_path, hub_strategy=strategy)
    messages = [*(f"Training in progress, step {step}" for step in steps), "End of training"]
    assert published == [("user/model", message, MODEL | {"processor_config.json"}) for message in messages]
    assert (tmp_path / "training_args.bin").is_file()


def test_training_continues_where_the_hub_does_not_answer(tmp_path, published, monkeypatch, capsys):
    def publish_folder(folder, repo_id, message, **options):
        if "step" in message:
            raise ConnectionError("The Hub cannot be reached.")
        published.append(message)

    monkeypatch.setattr(publisher, "publish_folder", publish_folder)
    train(tmp_path, hub_strategy="every_save")
    assert published == ["End of training"]
    assert "Step 2 was not published, and training continues: The Hub cannot be reached." in capsys.readouterr().out


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_checkpoints_are_not_published(tmp_path, published, strategy):
    with pytest.raises(ValueError, match="`hub_strategy` can be 'end' or 'every_save'"):
        train(tmp_path, hub_strategy=strategy)
