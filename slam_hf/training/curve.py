"""Draws the curve of a training run."""

from pathlib import Path

from transformers import TrainerState


def save_training_curve(state: TrainerState, path: Path) -> None:
    r"""
    Plot the training loss, the validation loss and the learning rate over the steps.

    Args:
        state ([`~transformers.TrainerState`]):
            State of the trainer, with its log history.
        path (`Path`):
            The PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    losses = figure.subplots()
    for key, label in (("loss", "training"), ("eval_loss", "validation")):
        losses.plot(*_series(state, key), marker="o" if key == "eval_loss" else None, label=label)
    losses.set(xlabel="step", ylabel="loss (nats per unit)")
    losses.legend(loc="upper left", bbox_to_anchor=(0.0, 1.1), ncols=2, frameon=False)
    rates = losses.twinx()
    rates.plot(*_series(state, "learning_rate"), color="grey", linewidth=0.8)
    rates.set_ylabel("learning rate", color="grey")
    figure.savefig(path, dpi=150)


def _series(state: TrainerState, key: str) -> tuple[list[int], list[float]]:
    logs = [log for log in state.log_history if key in log]
    return [log["step"] for log in logs], [log[key] for log in logs]
