"""Arguments of the training of a vocoder."""

import json
from dataclasses import dataclass, field
from typing import Literal

from ..configuration_hubert_unit_codec import UnitHifiGanConfig


@dataclass
class VocoderArguments:
    _argument_group_name = "vocoder"

    codec: str = field(metadata={"help": "Folder or Hub repository of the codec whose units the vocoder speaks."})
    output_dir: str = field(metadata={"help": "Folder of the codec with its new vocoder, and of the run."})
    codec_revision: str = field(default="main", metadata={"help": "Revision of the codec's repository."})
    vocoder_config: dict | str | None = field(
        default=None,
        metadata={"help": "Values of a `UnitHifiGanConfig` for a new vocoder, in JSON. Default: HiFi-GAN V1."},
    )
    init_from: str | None = field(
        default=None,
        metadata={
            "help": "Vocoder to continue from: a codec or a vocoder, a folder or a Hub repository; or a checkpoint of "
            "a published unit HiFi-GAN, with `init_config`."
        },
    )
    init_config: str | None = field(default=None, metadata={"help": "JSON file that comes with that checkpoint."})
    validation_source: str | None = field(
        default=None, metadata={"help": "Held-out recordings, of the same layout. Default: a share of the source."}
    )
    validation_share: float = field(default=0.02, metadata={"help": "Share of the source that is held out."})
    max_validation: int = field(default=64, metadata={"help": "Maximum number of held-out recordings."})
    max_seconds: float = field(
        default=20.0, metadata={"help": "Maximum length in seconds. Longer recordings are cut."}
    )
    num_augmentations: int = field(
        default=0,
        metadata={
            "help": "Versions of each recording with another vocal tract, room and background. The vocoder learns to "
            "speak their units too in the voice of the recording, as it will those of people it was not trained on."
        },
    )
    max_steps: int | None = field(default=None, metadata={"help": "Steps to train."})
    max_train_hours: float | None = field(default=None, metadata={"help": "Hours to train, in place of `max_steps`."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Number of crops per batch and process."})
    crop_seconds: float = field(default=0.56, metadata={"help": "Length of a crop, in seconds."})
    learning_rate: float = field(default=2e-4, metadata={"help": "Learning rate after the warm-up."})
    final_learning_rate: float = field(
        default=1e-4, metadata={"help": "Learning rate at the end, which it decays to exponentially."}
    )
    warmup_steps: int = field(default=0, metadata={"help": "Steps over which the learning rate rises."})
    adam_beta1: float = field(default=0.8, metadata={"help": "First beta of AdamW."})
    adam_beta2: float = field(default=0.99, metadata={"help": "Second beta of AdamW."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW."})
    max_grad_norm: float | None = field(
        default=None, metadata={"help": "Maximum norm of the gradients. Default: no limit."}
    )
    mel_weight: float = field(default=45.0, metadata={"help": "Weight of the mel loss."})
    stft_weight: float = field(default=0.0, metadata={"help": "Weight of the multi-resolution STFT loss."})
    feature_weight: float = field(default=2.0, metadata={"help": "Weight of the feature matching loss."})
    duration_weight: float = field(default=1.0, metadata={"help": "Weight of the loss of the duration predictor."})
    adversarial_from: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training after which the discriminators take part: 0 from the start, 1 never."
        },
    )
    discriminator_width: int = field(
        default=32, metadata={"help": "Channels of the narrowest layers of the discriminators, a multiple of 4."}
    )
    mixed_precision: Literal["no", "bf16"] = field(default="no", metadata={"help": "Precision of the computation."})
    logging_steps: int = field(default=100, metadata={"help": "Steps between two logs."})
    eval_steps: int = field(default=5000, metadata={"help": "Steps between two validations, with samples."})
    save_steps: int = field(default=5000, metadata={"help": "Steps between two checkpoints."})
    num_samples: int = field(default=4, metadata={"help": "Held-out recordings whose resynthesis is written."})
    asr_model: str | None = field(
        default=None,
        metadata={"help": "Speech recogniser, a Hub id or a folder, for the word error rate of the resynthesis."},
    )
    num_workers: int = field(
        default=2, metadata={"help": "Number of processes that prepare batches or decode recordings."}
    )
    use_cpu: bool = field(default=False, metadata={"help": "Train on the CPU, also where there is a GPU."})
    seed: int = field(default=0, metadata={"help": "Seed of the weights and of the crops."})

    def __post_init__(self):
        if isinstance(self.vocoder_config, str):
            try:
                self.vocoder_config = json.loads(self.vocoder_config)
            except ValueError as error:
                raise ValueError(f"`vocoder_config` is not JSON: {error}.") from error
        if not isinstance(self.vocoder_config, dict | None):
            raise ValueError(f"`vocoder_config` must be a mapping, got {self.vocoder_config!r}.")
        known = UnitHifiGanConfig.__annotations__.keys()
        if unknown := (self.vocoder_config or {}).keys() - known:
            raise ValueError(f"`vocoder_config` has an unknown key {min(unknown)!r}. Known: {', '.join(known)}.")
        if self.init_from is not None and self.vocoder_config is not None:
            raise ValueError("`init_from` brings its own configuration: leave out `vocoder_config`.")
        if self.init_config is not None and self.init_from is None:
            raise ValueError("`init_config` describes a checkpoint: name it, `init_from`.")
        for name in ("max_steps", "max_train_hours"):  # -1 removes what a recipe gives
            if (getattr(self, name) or 0) <= 0:
                setattr(self, name, None)
        if (self.max_steps is None) == (self.max_train_hours is None):
            raise ValueError("Give one of `max_steps` and `max_train_hours`: how long to train.")
        for name, least in (
            ("per_device_train_batch_size", 1),
            ("max_validation", 1),
            ("num_augmentations", 0),
            ("warmup_steps", 0),
            ("logging_steps", 1),
            ("eval_steps", 1),
            ("save_steps", 1),
            ("num_samples", 0),
            ("num_workers", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        for name in ("learning_rate", "final_learning_rate", "crop_seconds", "max_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in ("adversarial_from", "validation_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1, got {getattr(self, name)}.")
        if self.discriminator_width < 4 or self.discriminator_width % 4:
            raise ValueError(f"`discriminator_width` must be a multiple of 4, got {self.discriminator_width}.")
