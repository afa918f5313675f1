"""Lets a model be heard while it is trained: a continuation of the same prompt every so many steps."""

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile
import torch
from datasets import Dataset, IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from ..processing_speech_lm import SpeechLMProcessor
from .arguments import PretrainArguments
from .final_steps import PROMPT_UNITS, continue_document


MIN_NEW_UNITS = 50
"""About two seconds: a model that has learned little ends at once, and would not be heard."""


def choose_prompt(documents: Dataset | IterableDataset) -> np.ndarray:
    """The first three seconds of a held-out document that goes on as long again, the first of a thousand; or half of
    the longest of them, where there is none. Its units, of shape `(units,)`."""
    longest: np.ndarray = np.array([], dtype=int)
    for document in documents.take(1000):
        longest = max(longest, document["units"], key=len)
        if len(longest) >= 2 * PROMPT_UNITS:
            break
    return longest[: min(PROMPT_UNITS, math.ceil(len(longest) / 2))]


def check_samples(args: PretrainArguments, processor: SpeechLMProcessor) -> None:
    """Raise a `ValueError` if a run cannot be heard: its codec does not speak, or there is no speech to continue."""
    if args.sample_steps is None:
        return
    way_out = "or set `sample_steps` to -1."
    if processor.audio_tokenizer is None or processor.audio_tokenizer.vocoder is None:
        raise ValueError(f"`sample_steps` needs a codec that speaks: name a `codec` with a vocoder, {way_out}")
    if all(corpus.modality == "text" for corpus in args.datasets):
        raise ValueError(f"`sample_steps` needs speech to continue, and all corpora are text: add one, {way_out}")


class ContinuationSamples(TrainerCallback):
    r"""
    Continues the same prompt every so many steps, with the same seed, and writes the prompt and the continuation to
    `continuations/step-{step}.wav` in the output folder. If the run is reported to trackio, W&B or TensorBoard, they
    get the audio as `samples/continuation`. Training does not change.

    Only the main process does it, except with FSDP, where each process has a part of the model. Training goes on if
    the audio cannot be written.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer.
        processor ([`SpeechLMProcessor`]):
            The tokenizer and a codec with a vocoder.
        prompt (`np.ndarray` of shape `(units,)`):
            The prompt, as of [`choose_prompt`].
        every (`int`):
            Number of steps from one continuation to the next.
        pause (`Callable`):
            Is called before each continuation, whose time is not that of training.

    Raises:
        ValueError: the weights are sharded by DeepSpeed, or by the first version of FSDP.
    """

    def __init__(
        self,
        trainer: Trainer,
        processor: SpeechLMProcessor,
        prompt: np.ndarray,
        every: int,
        pause: Callable[[], None],
    ):
        plugin = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
        if trainer.is_deepspeed_enabled or (plugin is not None and plugin.fsdp_version < 2):
            raise ValueError("`sample_steps` works with DDP and FSDP2, not with this sharding: set it to -1.")
        self.trainer, self.processor, self.prompt = trainer, processor, prompt
        self.every, self.pause = every, pause

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **kwargs
    ) -> None:
        if state.global_step % self.every:
            return
        self.pause()
        if not (state.is_world_process_zero or self.trainer.is_fsdp_enabled):
            return
        path = None
        if state.is_world_process_zero:
            path = Path(args.output_dir) / "continuations" / f"step-{state.global_step}.wav"
            with suppress(OSError):  # which the file will have too
                path.parent.mkdir(exist_ok=True)
        was_training = model.training
        model.eval()
        try:
            with torch.random.fork_rng([args.device] if args.device.type == "cuda" else []):
                continue_document(model, self.processor, self.prompt, args.seed, path, MIN_NEW_UNITS)
            if path is not None:
                self._report(path, state.global_step)
        except soundfile.LibsndfileError as error:
            print(f"There is no continuation of step {state.global_step}: {error}")
        model.train(was_training)

    def _report(self, path: Path, step: int) -> None:
        # As 16-bit integers: trackio makes floats as loud as they can be.
        audio, rate = soundfile.read(path, dtype="int16")
        name, axis, caption = "samples/continuation", {"train/global_step": step}, f"training step {step}"
        reporters = self.trainer.args.report_to
        if "trackio" in reporters:
            import trackio

            trackio.log({name: trackio.Audio(audio, caption, rate), **axis})
        if "wandb" in reporters:
            import wandb

            wandb.log({name: wandb.Audio(audio, rate, caption), **axis})
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback):
                callback.tb_writer.add_audio(name, torch.from_numpy(audio / 2**15), step, rate)
