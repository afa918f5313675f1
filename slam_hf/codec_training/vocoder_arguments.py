"""Arguments of the training of a vocoder."""

import json
from dataclasses import dataclass
from typing import Literal

from transformers.hf_argparser import HfArg

from ..configuration_hubert_unit_codec import UnitHifiGanConfig


@dataclass
class VocoderArguments:
    _argument_group_name = "vocoder"

    codec: str = HfArg(help="Folder or Hub repository of the codec whose units the vocoder speaks.")
    output_dir: str = HfArg(help="Folder of the codec with its new vocoder, and of the run.")
    codec_revision: str = HfArg(default="main", help="Revision of the codec's repository.")
    vocoder_config: dict | str | None = HfArg(
        default=None, help="Values of a `UnitHifiGanConfig` for a new vocoder, in JSON. Default: HiFi-GAN V1."
    )
    init_from: str | None = HfArg(
        default=None,
        help="Vocoder to continue from: a codec or a vocoder, a folder or a Hub repository; or a checkpoint of "
        "a published unit HiFi-GAN, with `init_config`.",
    )
    init_config: str | None = HfArg(default=None, help="JSON file that comes with that checkpoint.")
    validation_source: str | None = HfArg(
        default=None, help="Held-out recordings, of the same layout. Default: a share of the source."
    )
    validation_share: float = HfArg(default=0.02, help="Share of the source that is held out.")
    max_validation: int = HfArg(default=64, help="Maximum number of held-out recordings.")
    max_seconds: float = HfArg(default=20.0, help="Maximum length in seconds. Longer recordings are cut.")
    num_augmentations: int = HfArg(
        default=0,
        help="Versions of each recording with another vocal tract, room and background. The vocoder learns to "
        "speak their units in the voice of the recording too, as it must with the units of unknown speakers.",
    )
    max_steps: int | None = HfArg(default=None, help="Steps to train.")
    max_train_hours: float | None = HfArg(default=None, help="Hours to train, in place of `max_steps`.")
    per_device_train_batch_size: int = HfArg(default=16, help="Number of crops per batch and process.")
    crop_seconds: float = HfArg(default=0.56, help="Length of a crop, in seconds.")
    learning_rate: float = HfArg(default=2e-4, help="Learning rate after the warm-up.")
    final_learning_rate: float = HfArg(
        default=1e-4, help="Learning rate at the end, which it decays to exponentially."
    )
    warmup_steps: int = HfArg(default=0, help="Steps over which the learning rate rises.")
    adam_beta1: float = HfArg(default=0.8, help="First beta of AdamW.")
    adam_beta2: float = HfArg(default=0.99, help="Second beta of AdamW.")
    weight_decay: float = HfArg(default=0.01, help="Weight decay of AdamW.")
    max_grad_norm: float | None = HfArg(default=None, help="Maximum norm of the gradients. Default: no limit.")
    mel_weight: float = HfArg(default=45.0, help="Weight of the mel loss.")
    stft_weight: float = HfArg(default=0.0, help="Weight of the multi-resolution STFT loss.")
    feature_weight: float = HfArg(default=2.0, help="Weight of the feature matching loss.")
    duration_weight: float = HfArg(default=1.0, help="Weight of the loss of the duration predictor.")
    adversarial_from: float = HfArg(
        default=0.0, help="Share of the training after which the discriminators take part: 0 from the start, 1 never."
    )
    discriminator_width: int = HfArg(
        default=32, help="Channels of the narrowest layers of the discriminators, a multiple of 4."
    )
    mixed_precision: Literal["no", "bf16"] = HfArg(default="no", help="Precision of the computation.")
    logging_steps: int = HfArg(default=100, help="Steps between two logs.")
    eval_steps: int = HfArg(default=5000, help="Steps between two validations, with samples.")
    save_steps: int = HfArg(default=5000, help="Steps between two checkpoints.")
    num_samples: int = HfArg(default=4, help="Held-out recordings whose resynthesis is written.")
    asr_model: str | None = HfArg(
        default=None, help="Speech recogniser, a Hub id or a folder, for the word error rate of the resynthesis."
    )
    num_workers: int = HfArg(default=2, help="Number of processes that prepare batches or decode recordings.")
    use_cpu: bool = HfArg(default=False, help="Train on the CPU, also where there is a GPU.")
    seed: int = HfArg(default=0, help="Seed of the weights and of the crops.")

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
