"""Trains a unit HiFi-GAN against its discriminators, on accelerate."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from tqdm import tqdm

from ..modeling_hubert_unit_codec import HubertUnitCodec
from ..modeling_unit_hifigan import UnitHifiGan
from .discriminators import Discriminators
from .vocoder_arguments import VocoderArguments
from .vocoder_checkpoints import (
    DamagedError,
    NotFiniteError,
    Progress,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from .vocoder_initialization import with_vocoder
from .vocoder_losses import LogMel, StftLoss, adversarial_losses, discriminator_loss
from .vocoder_samples import measure_resynthesis, save_samples
from .voice_crops import VoiceCrops, make_loader
from .voice_recordings import VoiceRecordings


class TrainedVocoder(nn.Module):
    r"""
    A vocoder in training: its convolutions have weight normalisation, and one forward pass has all its outputs.

    Args:
        vocoder ([`UnitHifiGan`]):
            The vocoder, which gets the weight normalisation in place.
    """

    def __init__(self, vocoder: UnitHifiGan):
        super().__init__()
        self.vocoder = vocoder
        for module in list(vocoder.hifi_gan.modules()):
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                weight_norm(module)

    def forward(
        self,
        units: torch.LongTensor,
        speakers: list[int] | None,
        styles: list[int] | None,
        runs: torch.LongTensor,
        durations: torch.LongTensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Waveforms of the units of frames, of shape `(batch_size, num_frames)`; and the loss of the durations that
        are predicted for `runs`, deduplicated units of shape `(batch_size, num_units)`: the mean squared error of
        log(1 + frames). Padding lasts 0 frames. The embeddings of units do not learn from the durations."""
        waveforms = self.vocoder(units, torch.ones_like(units), speakers, styles)
        if self.vocoder.duration_predictor is None:
            return waveforms, waveforms.new_zeros(())
        known = durations > 0
        predicted = self.vocoder.duration_predictor(self.vocoder.unit_embedding(runs).detach(), padding_mask=known)
        errors = (predicted.float() - durations.float().log1p()).square() * known
        return waveforms, errors.sum() / known.sum()

    def export(self) -> UnitHifiGan:
        """A copy of the vocoder without weight normalisation, in evaluation mode."""
        with torch.device("meta"):
            vocoder = UnitHifiGan(self.vocoder.config)
        weights = {}
        for name in vocoder.state_dict():
            module, _, key = name.rpartition(".")
            weights[name] = getattr(self.vocoder.get_submodule(module), key).detach().clone()
        vocoder.load_state_dict(weights, assign=True)
        return vocoder.eval().requires_grad_(False)


def train_vocoder(
    args: VocoderArguments,
    accelerator: Accelerator,
    codec: HubertUnitCodec,
    vocoder: UnitHifiGan,
    crops: VoiceCrops,
    validation: VoiceRecordings,
    held_out: Sequence[int],
) -> tuple[HubertUnitCodec, Progress]:
    r"""
    Train a vocoder, or continue from the newest checkpoint in `output_dir`. On a CPU, in one process, an interrupted
    training gives the same weights, bit for bit, as one that was not.

    Args:
        args ([`VocoderArguments`]):
            How to train.
        accelerator ([`~accelerate.Accelerator`]):
            The processes and their devices.
        codec ([`HubertUnitCodec`]):
            The codec that gave the units.
        vocoder ([`UnitHifiGan`]):
            The vocoder to start from, trained in place.
        crops ([`VoiceCrops`]):
            Training data.
        validation ([`VoiceRecordings`]), held_out (sequence of `int`):
            Held-out recordings.

    Returns:
        `tuple[HubertUnitCodec, Progress]`: the codec with the trained vocoder, and what was measured.

    Raises:
        NotFiniteError: the training has diverged. The last checkpoint is from before.
    """
    folder, is_main = Path(args.output_dir), accelerator.is_main_process
    torch.manual_seed(args.seed)
    generator, discriminators = TrainedVocoder(vocoder), Discriminators(args.discriminator_width)
    options = {"betas": (args.adam_beta1, args.adam_beta2), "weight_decay": args.weight_decay}
    generator_optimizer = torch.optim.AdamW(generator.parameters(), args.learning_rate, **options)
    discriminator_optimizer = torch.optim.AdamW(discriminators.parameters(), args.learning_rate, **options)
    modules = {"generator": generator, "discriminators": discriminators}
    optimizers = {"generator_optimizer": generator_optimizer, "discriminator_optimizer": discriminator_optimizer}
    progress = _resume(folder / "checkpoints", modules, optimizers, accelerator)
    generator, discriminators, generator_optimizer, discriminator_optimizer = accelerator.prepare(
        generator, discriminators, generator_optimizer, discriminator_optimizer
    )
    log_mel, stft_loss = (loss.to(accelerator.device) for loss in (LogMel(codec.sampling_rate), StftLoss()))
    place = (accelerator.process_index, accelerator.num_processes)
    batches = iter(make_loader(crops, args.per_device_train_batch_size, progress.step, *place, args.num_workers))

    def save() -> None:
        accelerator.wait_for_everyone()
        if is_main:
            save_checkpoint(folder / "checkpoints", progress, modules, optimizers)

    def evaluate() -> None:
        trained = with_vocoder(codec, modules["generator"].export())
        figures = measure_resynthesis(trained, validation, held_out, log_mel, accelerator)
        progress.logs.append({"step": progress.step, **figures})
        if is_main:
            bar.write(
                json.dumps({"step": progress.step} | {name: round(figure, 4) for name, figure in figures.items()})
            )
            save_samples(folder / "samples", progress.step, trained, validation, held_out, args.num_samples, log_mel)

    counts = {"speakers": vocoder.config.num_speakers, "styles": vocoder.config.num_styles}
    before, started = progress.seconds, time.monotonic()
    total, unit = (args.max_steps, "step") if args.max_steps else (round(3600 * args.max_train_hours), "s")
    position = progress.step if args.max_steps else progress.seconds
    with tqdm(desc="Training", total=total, initial=int(position), unit=unit, disable=not is_main) as bar:
        if progress.step == 0:
            evaluate()
        while (share := _share(args, progress)) < 1:
            # What is random in a step depends on its number alone.
            seeds = np.random.SeedSequence((args.seed, progress.step, accelerator.process_index))
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            for optimizer in (generator_optimizer, discriminator_optimizer):
                for group in optimizer.param_groups:
                    group["lr"] = _learning_rate(args, share, progress.step)
            batch = next(batches)
            voices = [batch[name].tolist() if count else None for name, count in counts.items()]
            units, runs, durations, real = (
                batch[name].to(accelerator.device) for name in ("units", "runs", "durations", "waveforms")
            )
            made, duration_loss = generator(units, *voices, runs, durations)
            made = made.float()
            losses = {"mel_loss": nn.functional.l1_loss(log_mel(made), log_mel(real)), "duration_loss": duration_loss}
            loss = args.mel_weight * losses["mel_loss"] + args.duration_weight * duration_loss
            if args.stft_weight:
                losses["stft_loss"] = stft_loss(made, real)
                loss = loss + args.stft_weight * losses["stft_loss"]
            if share >= args.adversarial_from:
                losses["discriminator_loss"] = discriminator_loss(discriminators(torch.cat([real, made.detach()])))
                discriminator_optimizer.zero_grad()
                accelerator.backward(losses["discriminator_loss"])
                _clip(args, accelerator, discriminators)
                discriminator_optimizer.step()
                judges = modules["discriminators"].requires_grad_(False)
                with accelerator.autocast():
                    judgements = judges(torch.cat([real, made]))
                judges.requires_grad_(True)
                losses["adversarial_loss"], losses["feature_loss"] = adversarial_losses(judgements)
                loss = loss + losses["adversarial_loss"] + args.feature_weight * losses["feature_loss"]
            generator_optimizer.zero_grad()
            accelerator.backward(loss)
            _clip(args, accelerator, generator)
            generator_optimizer.step()

            progress.step += 1
            progress.seconds = _same_everywhere(before + time.monotonic() - started, accelerator)
            bar.update(1 if args.max_steps else int(progress.seconds) - bar.n)
            for name, value in {"loss": loss, **losses}.items():
                progress.losses.setdefault(name, []).append(value.item())
            if not all(math.isfinite(values[-1]) for values in progress.losses.values()):
                raise NotFiniteError(_diverged(folder, progress.step, "the loss is not a finite number"))
            if progress.step % args.logging_steps == 0:
                means = {name: sum(values) / len(values) for name, values in progress.losses.items()}
                progress.logs.append({"step": progress.step, "seconds": progress.seconds, **means})
                progress.losses = {}
                bar.set_postfix({"mel": f"{means['mel_loss']:.3f}"})
            is_last = _share(args, progress) >= 1
            if progress.step % args.eval_steps == 0 or is_last:
                evaluate()
            if progress.step % args.save_steps == 0 or is_last:
                try:
                    save()
                except NotFiniteError as error:
                    raise NotFiniteError(_diverged(folder, progress.step, str(error))) from error
    return with_vocoder(codec, modules["generator"].export()), progress


def describe_plan(
    args: VocoderArguments, accelerator: Accelerator, vocoder: UnitHifiGan, crops: VoiceCrops, held_out: Sequence[int]
) -> str:
    """The plan of a training, in a few lines."""
    hours = crops.recordings.num_frames[crops.indices].sum() * crops.hop_length / vocoder.config.sampling_rate / 3600
    batch = args.per_device_train_batch_size * accelerator.num_processes
    seconds = crops.crop_frames * crops.hop_length / vocoder.config.sampling_rate
    length = f"{args.max_steps:,} steps" if args.max_steps else f"{args.max_train_hours:g} hours"
    voices = [f"{len(crops.speakers) or 1} speakers", f"{len(crops.styles) or 1} styles"]
    lines = [
        f"Vocoder: {vocoder.num_parameters() / 1e6:.1f} million parameters, {', '.join(voices)}.",
        f"Recordings: {hours:.2f} hours in {len(crops.indices):,} pieces; {len(held_out)} are held out.",
        f"Training: {length} of {batch} crops of {seconds:.2f} s, in {accelerator.num_processes} processes on "
        f"{accelerator.device.type}.",
    ]
    if crops.num_too_short:
        lines.append(f"{crops.num_too_short:,} pieces are shorter than a crop and left out.")
    return "\n".join(lines)


def _resume(
    folder: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    accelerator: Accelerator,
) -> Progress:
    """Load the newest checkpoint that is not damaged."""
    for path in reversed(list_checkpoints(folder)):
        try:
            progress = load_checkpoint(path, modules, optimizers)
        except DamagedError as error:
            accelerator.print(f"Skipped: {error}")
            continue
        accelerator.print(f"Continuing from step {progress.step:,}.")
        return progress
    return Progress()


def _share(args: VocoderArguments, progress: Progress) -> float:
    """The share of the training that is done."""
    if args.max_steps is not None:
        return progress.step / args.max_steps
    return progress.seconds / (3600 * args.max_train_hours)


def _learning_rate(args: VocoderArguments, share: float, step: int) -> float:
    warmup = min(1.0, (step + 1) / args.warmup_steps) if args.warmup_steps else 1.0
    return warmup * args.learning_rate * (args.final_learning_rate / args.learning_rate) ** share


def _clip(args: VocoderArguments, accelerator: Accelerator, module: nn.Module) -> None:
    if args.max_grad_norm is not None:
        accelerator.clip_grad_norm_(module.parameters(), args.max_grad_norm)


def _same_everywhere(seconds: float, accelerator: Accelerator) -> float:
    """The time of the main process, so that all have the same schedule."""
    if accelerator.num_processes == 1:
        return seconds
    return broadcast(torch.tensor(seconds, dtype=torch.float64, device=accelerator.device)).item()


def _diverged(folder: Path, step: int, reason: str) -> str:
    checkpoints = list_checkpoints(folder / "checkpoints")
    kept = f"'{checkpoints[-1]}' is from before" if checkpoints else "There is no checkpoint yet"
    return (
        f"The training has diverged at step {step:,}: {reason}. {kept}. Start the same command again with a lower "
        "`learning_rate` or with `max_grad_norm`."
    )
