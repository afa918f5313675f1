"""Publishes a model while it is trained and at the end, by named files."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import ModelCard
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy

from ..sharded_checkpoints import is_sharded
from .codec_reference import drop_local_codec
from .remote_code import export_remote_code
from .repository_files import publishable_files, stage
from .samples import stage_samples
from .upload import publish_folder


class Publisher(TrainerCallback):
    r"""
    Publishes the model instead of the Trainer, which would push everything in the folder, pickles included.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer. It creates the repository, but no longer pushes to it.
        processor ([`~transformers.ProcessorMixin`]):
            The processor of the model, which is saved in each checkpoint.

    Raises:
        ValueError: `hub_strategy` asks to publish checkpoints, which hold pickles.
    """

    def __init__(self, trainer: Trainer, processor: ProcessorMixin):
        args = trainer.args
        if args.push_to_hub and args.hub_strategy not in (HubStrategy.END, HubStrategy.EVERY_SAVE):
            raise ValueError(
                "`hub_strategy` can be 'end' or 'every_save': checkpoints hold pickles, which are not published."
            )
        self.repo_id = trainer.hub_model_id if args.push_to_hub else None
        self.processor = processor
        args.push_to_hub = False

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero:
            return
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self.processor.save_pretrained(checkpoint)
        if is_sharded(checkpoint):  # the Trainer leaves out the configuration
            model.config.save_pretrained(checkpoint)
            model.generation_config.save_pretrained(checkpoint)
        if args.hub_strategy == HubStrategy.EVERY_SAVE:
            try:
                self.publish(checkpoint, args, f"Training in progress, step {state.global_step}")
            except (OSError, ValueError) as error:
                print(f"Step {state.global_step} was not published, and training continues: {error}")

    def publish(self, folder: Path, args: TrainingArguments, message: str) -> None:
        """Publish a model, with its card if it has one. Without `push_to_hub`, nothing is published."""
        if self.repo_id is None:
            return
        card = folder / "README.md"
        if card.is_file():
            ModelCard.load(card).validate()
        with TemporaryDirectory(prefix=".push_to_hub-", dir=args.output_dir) as staging:
            stage([*publishable_files(folder), *([card] if card.is_file() else [])], Path(staging))
            stage_samples(folder, Path(staging))
            export_remote_code(staging)
            drop_local_codec(Path(staging))
            publish_folder(
                Path(staging),
                self.repo_id,
                private=bool(args.hub_private_repo),
                revision=args.hub_revision or "main",
                message=message,
            )
