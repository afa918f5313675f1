"""Trains a model to the end, saves it and listens to it, and checks beforehand what this needs."""

import copy
import shutil
from pathlib import Path

import numpy as np
import soundfile
import torch
from datasets import Dataset, IterableDataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, pipeline
from transformers.utils import is_matplotlib_available
from trl import ModelConfig

from ..audio_utils import load_audio
from ..continuation_plot import plot_continuation
from ..evaluation.pairs import check_benchmark
from ..evaluation.tasks import TASKS
from ..evaluation.units import read_tokenized
from ..hub.publisher import Publisher
from ..hub.remote_code import export_remote_code
from ..judging.transcription import load_recogniser, transcribe_waveforms
from ..modeling_speech_lm import SpeechLMForCausalLM
from ..pipeline_audio_to_audio import PAPER_SAMPLING
from ..processing_speech_lm import SpeechLMProcessor
from .arguments import PretrainArguments
from .checkpoints import save_on_other_machine, train_or_resume
from .process_setup import put_before_reporters, show_one_bar


UNFINISHED_MODEL = ".unfinished_model"

PROMPT_UNITS = 60
"""About three seconds of speech at 25 frames a second."""

PROMPT_SECONDS = 3.0


def check_final_steps(args: PretrainArguments, sampling_rate: int) -> None:
    """Check what the last steps of a training need, before it starts: it may take days. An `ImportError`, `OSError` or
    `ValueError` names what is missing or damaged: a benchmark, the recording to continue, or the recogniser."""
    if not is_matplotlib_available():
        print('There will be no training_curve.png, which takes matplotlib: pip install "slam-hf[plots]".')
    for task, folder in args.benchmarks.items():
        check_benchmark(task, folder, args.num_units, args.has_text)
        is_spoken = "speech" in (TASKS[task].prompt, TASKS[task].ending)
        if args.codec is None and is_spoken and read_tokenized(folder) is None:
            raise ValueError(f"'{folder}' holds audio: name the `codec` of the corpora to score {task} on it.")
    if args.prompt is not None:
        load_audio(args.prompt, sampling_rate)
        if args.asr_model is not None:
            load_recogniser(args.asr_model, torch.device("cpu"))


def train_and_save(trainer: Trainer, processor: SpeechLMProcessor, *measuring: TrainerCallback) -> Publisher:
    """Train, or continue an interrupted run, evaluate, and save the model with its processor in the output folder.
    Callbacks that are `measuring` add to the logs before they are reported. Returns what publishes the model."""
    put_before_reporters(trainer, *measuring)
    show_one_bar(trainer)
    publisher = Publisher(trainer, processor)
    trainer.add_callback(publisher)
    if trainer.is_world_process_zero():
        processor.save_pretrained(trainer.args.output_dir)
    train_or_resume(trainer)
    trainer.evaluate()
    save_final_model(trainer)
    return publisher


def save_final_model(trainer: Trainer) -> None:
    """Save the whole trained model, with its adapters merged, also if its checkpoints are in shards. The files come to
    the output folder once all are written, the weights last: a killed process leaves no folder that looks complete."""
    if isinstance(trainer.model, PeftModel):
        trainer.model = trainer.model.merge_and_unload()
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        # Gathered weights share no memory: the tied ones would be saved twice.
        trainer.model._keys_to_ignore_on_save.update(trainer.model.all_tied_weights_keys)
        type(trainer.model)._auto_class = None  # FSDP has changed the class, and its code would be saved
    output_dir = Path(trainer.args.output_dir)
    unfinished = output_dir / UNFINISHED_MODEL
    if trainer.args.should_save:
        shutil.rmtree(unfinished, ignore_errors=True)
    trainer.save_model(unfinished)
    save_on_other_machine(trainer.model, trainer.args, unfinished)
    if trainer.args.should_save:
        for path in output_dir.glob("model*.safetensors*"):
            path.unlink()
        for path in sorted(unfinished.iterdir(), key=lambda path: (".safetensors" in path.name, path.name)):
            path.replace(output_dir / path.name)
        unfinished.rmdir()
    if trainer.is_fsdp_enabled and trainer.is_world_process_zero():
        export_remote_code(output_dir)


def trained_model(trainer: Trainer, model_args: ModelConfig) -> SpeechLMForCausalLM:
    """The trained model in float32 and in evaluation mode: the one in memory if it is whole and computes like a loaded
    one, or else the one that the trainer has saved."""
    is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if is_sharded or model_args.dtype != "float32" or model_args.attn_implementation is not None:
        model = AutoModelForCausalLM.from_pretrained(trainer.args.output_dir, dtype=torch.float32)
    else:
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    return model.to(trainer.args.device).eval()


def describe_continuation(
    args: PretrainArguments,
    model: SpeechLMForCausalLM,
    processor: SpeechLMProcessor,
    documents: Dataset | IterableDataset | None,
    seed: int,
    path: Path,
) -> str:
    """Let a model continue the recording `args.prompt`, or else the first of the held-out documents with units, and
    say where the audio is with its transcript, or else which units it continued with which. Audio is written to `path`
    if the processor has a codec with a vocoder."""
    if args.prompt is None and documents is None:
        return "There is no speech to continue: all corpora are text, and `prompt` names no recording."
    if args.prompt is None:
        prompt, continuation = continue_document(model, processor, next(iter(documents))["units"], seed, path)
        heard = f"Continuation of a held-out document: {path}\n" if path.is_file() else ""
        return f"{heard}Prompt: {prompt}\nContinuation: {continuation}"
    transcript = continue_recording(model, processor, args.prompt, seed, path, args.asr_model)
    return f"Continuation of {args.prompt}: {path}" + ("" if transcript is None else f"\nTranscript: {transcript}")


def continue_document(
    model: SpeechLMForCausalLM,
    processor: SpeechLMProcessor,
    units: np.ndarray,
    seed: int,
    path: Path | None,
    min_new_units: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The units of the beginning of a document and of its continuation, with the sampling of
    [`AudioToAudioPipeline`]. Their audio is written to `path`, if there is one and a codec with a vocoder."""
    prompt = processor.tokenizer.encode_units(units[:PROMPT_UNITS], return_tensors="pt").to(model.device)
    settings = copy.deepcopy(PAPER_SAMPLING)
    settings.min_new_tokens = min_new_units
    if model.config.has_text:
        settings.suppress_tokens = processor.tokenizer.ids_outside("speech")
    torch.manual_seed(seed)
    sequence = model.generate(**prompt, generation_config=settings)[0]
    codec = processor.audio_tokenizer
    if path is not None and codec is not None and codec.vocoder is not None:
        soundfile.write(path, processor.decode(sequence.to(codec.device)), codec.sampling_rate)
    prompt_length = prompt["input_ids"].shape[1]
    return units[:PROMPT_UNITS], processor.tokenizer.decode_units(sequence[prompt_length:])


def continue_recording(
    model: SpeechLMForCausalLM,
    processor: SpeechLMProcessor,
    recording: str,
    seed: int,
    path: Path,
    asr_model: str | None = None,
) -> str | None:
    """Continue the first three seconds of a recording by two seconds or more, and write the prompt, as the codec says
    it, with its continuation. The transcript of this audio, if there is a recogniser."""
    speak = pipeline("audio-to-audio", model=model, processor=processor, device=model.device)
    result = speak(recording, prompt_duration=PROMPT_SECONDS, seed=seed)
    soundfile.write(path, result["audio"], result["sampling_rate"])
    if is_matplotlib_available():
        plot_continuation(result).savefig(path.with_suffix(".png"), dpi=100)
    if asr_model is None:
        return None
    transcribe = load_recogniser(asr_model, speak.device)
    return transcribe_waveforms([result["audio"]], result["sampling_rate"], transcribe, batch_size=1)[0].strip()
