"""The model after training, and a check before training of what its evaluation will need."""

import torch
from transformers import AutoModelForCausalLM, Trainer
from transformers.utils import is_matplotlib_available
from trl import ModelConfig

from ..audio_utils import load_audio
from ..evaluation.pairs import check_benchmark
from ..evaluation.transcription import load_recogniser
from ..evaluation.units import read_tokenized
from ..modeling_speech_lm import SpeechLMForCausalLM
from .arguments import PretrainArguments


def check_final_steps(args: PretrainArguments, sampling_rate: int) -> None:
    r"""
    Check what the last steps of a training need, before it starts: it may take days.

    Args:
        args ([`PretrainArguments`]):
            The benchmarks, the recording to continue and the speech recogniser.
        sampling_rate (`int`):
            Sampling rate of the codec, in Hz.

    Raises:
        ImportError, OSError, ValueError: something is missing or damaged; the message names it.
    """
    if not is_matplotlib_available():
        print('There will be no training_curve.png, which takes matplotlib: pip install "slam-hf[plots]".')
    for task, folder in args.benchmarks.items():
        check_benchmark(task, folder, args.num_units)
        if args.codec is None and read_tokenized(folder) is None:
            raise ValueError(f"'{folder}' holds audio: name the `codec` of the corpora to score {task} on it.")
    if args.prompt is not None:
        load_audio(args.prompt, sampling_rate)
        if args.asr_model is not None:
            load_recogniser(args.asr_model, torch.device("cpu"))


def trained_model(trainer: Trainer, model_args: ModelConfig) -> SpeechLMForCausalLM:
    r"""
    Get the trained model in float32 and in evaluation mode: the one in memory if it is whole and computes like a
    loaded one, or else the one that the trainer has saved.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer, which has saved the model.
        model_args ([`~trl.ModelConfig`]):
            The data type and the attention of the training.
    """
    is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if is_sharded or model_args.dtype != "float32" or model_args.attn_implementation is not None:
        model = AutoModelForCausalLM.from_pretrained(trainer.args.output_dir, dtype=torch.float32)
    else:
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    return model.to(trainer.args.device).eval()
