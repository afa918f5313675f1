"""The record of a vocoder's training, and its curve."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from accelerate import Accelerator
from transformers.utils import is_matplotlib_available

from ..encoding.source_arguments import VoiceSourceArguments
from ..run_record import (
    CorpusRecord,
    Reference,
    RunRecord,
    describe_hardware,
    read_run_records,
    save_run_records,
)
from .vocoder_arguments import VocoderArguments
from .vocoder_checkpoints import Progress
from .voice_crops import VoiceCrops


OBJECTIVE = "vocoder training"

# fmt: off
RECIPE = (
    "max_train_hours", "crop_seconds", "learning_rate", "final_learning_rate", "warmup_steps", "adam_beta1",
    "adam_beta2", "weight_decay", "max_grad_norm", "mel_weight", "stft_weight", "feature_weight", "duration_weight",
    "adversarial_from", "discriminator_width", "num_augmentations", "mixed_precision", "seed",
)
# fmt: on
"""The arguments in a record."""

MEASURES = {
    "eval_mel_loss": "mel loss of held-out recordings",
    "eval_duration_error": "error of their durations (frames a unit)",
}


def save_vocoder_record(
    args: VocoderArguments,
    source_args: VoiceSourceArguments,
    accelerator: Accelerator,
    crops: VoiceCrops,
    progress: Progress,
    word_error_rates: dict[str, float],
) -> None:
    """Write `training_run.json`, which the card reads, and the curve into the output folder."""
    evaluations = [log for log in progress.logs if "eval_mel_loss" in log]
    validation = {
        name: [log[key] for log in (evaluations[0], evaluations[-1])]
        for key, name in MEASURES.items()
        if key in evaluations[0]
    }
    recipe = {name: getattr(args, name) for name in RECIPE}
    recipe |= {"batch_size": args.per_device_train_batch_size * accelerator.num_processes}
    record = RunRecord(
        objective=OBJECTIVE,
        base_model=None if args.init_from is None else Reference.to(args.init_from),
        corpora=[
            CorpusRecord(
                Reference.to(source_args.source),
                split=source_args.dataset_split if source_args.layout == "dataset" else None,
                num_rows=len(crops.indices),
                num_units=int(crops.recordings.num_frames[crops.indices].sum()),
            )
        ],
        recipe={name: value for name, value in recipe.items() if value is not None},
        hardware=describe_hardware(accelerator.device, accelerator.num_processes),
        num_steps=progress.step,
        seconds=progress.seconds,
        validation=validation,
        validation_steps=[evaluations[0]["step"], evaluations[-1]["step"]],
        measurements={f"word error rate of {version} (%)": 100 * rate for version, rate in word_error_rates.items()},
        packages={
            package: metadata.version(package) for package in ("slam-hf", "torch", "transformers", "accelerate")
        },
    )
    save_run_records([*read_run_records(args.codec, args.codec_revision), record], args.output_dir)
    save_vocoder_curve(progress.logs, Path(args.output_dir) / "training_curve.png")


def save_vocoder_curve(logs: Sequence[dict[str, float]], path: Path) -> None:
    """Plot the mel losses, and those of the game with the discriminators, if matplotlib is installed."""
    if not is_matplotlib_available():
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    mel, game = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    for axes, key, style in (
        (mel, "mel_loss", {"label": "training"}),
        (mel, "eval_mel_loss", {"label": "held-out recordings", "marker": "o"}),
        (game, "discriminator_loss", {"label": "discriminators"}),
        (game, "adversarial_loss", {"label": "vocoder"}),
        (game, "feature_loss", {"label": "feature matching"}),
    ):
        rows = [log for log in logs if key in log]
        if rows:
            axes.plot([log["step"] for log in rows], [log[key] for log in rows], **style)
    mel.set(ylabel="mel loss")
    mel.legend(frameon=False)
    game.set(xlabel="step", ylabel="adversarial losses")
    if game.lines:
        game.legend(frameon=False)
    figure.savefig(path, dpi=100)
