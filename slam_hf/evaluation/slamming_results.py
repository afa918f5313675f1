"""The results table of *Slamming: Training a Speech Language Model on One GPU in a Day* (arXiv 2502.15814)."""

from .results_table import Row, Score


COLUMNS = ("sblimp", "sstorycloze", "tstorycloze", "genppl", "auto_bleu")


def _row(model: str, compute: str, parameters: str, tokens: str, *scores: float | None) -> Row:
    cells = zip(COLUMNS, scores, strict=True)
    return Row(model, compute, parameters, tokens, {task: Score(value) for task, value in cells if value is not None})


PUBLISHED = (
    _row("GSLM", "8×V100", "100M", "1B", 54.2, 53.3, 66.6, None, None),
    _row("SyllableLM", "4×A40", "300M", "16B", 63.7, None, 75.4, None, None),
    _row("TWIST-350M", "8×V100", "305M", "10.8B", 56.2, None, None, 137.3, 3.46),
    _row("TWIST-1.3B", "32×V100", "1B", "10.8B", 57.0, 52.4, 70.6, 131.8, 3.20),
    _row("TWIST-7B", "32×V100", "7B", "36B", 59.0, 55.3, 74.1, 93.74, 3.06),
    _row("TWIST-13B", "32×V100", "13B", "36B", 59.2, 55.4, 76.4, None, None),
    _row("Scaled Optimal", "?", "823M", "82B", 61.3, 56.7, 78.0, None, None),
    _row("Moshi (speech only)", "?×H100", "7B", "?", 58.9, 58.7, 81.8, None, None),
    _row("SpiritLM (speech only)", "64×A100", "7B", "100B", 58.0, 54.8, 72.9, None, None),
    _row("Scaling Interleaving", "?", "9B", "~1T", None, 62.4, 82.9, None, None),
    _row("Moshi", "?×H100", "7B", "~720B", 58.8, 60.8, 83.0, None, None),
    _row("SpiritLM", "64×A100", "7B", "100B", 58.3, 61.0, 82.9, None, None),
    _row("AlignSLM-1.3B", "64×A100", "1B", "10.8B + ~158B", 59.8, 55.0, 80.0, None, None),
    _row("AlignSLM-7B", "64×A100", "7B", "36B + ~158B", 62.3, 61.1, 86.8, None, None),
    _row("Slam (-DPO)", "2×A100", "358M", "16.7B", 58.53, 58.15, 80.71, 67.3, 3.25),
    _row("Slam", "1×A5000", "358M", "1.4B + 5M", 58.86, 58.04, 82.04, 62.8, 3.88),
    _row("Slam (scaled)", "2×A100", "358M", "16.7B + 9M", 61.11, 61.30, 84.18, 46.6, 3.75),
)
"""As the authors' repository gives it. The models from Scaling Interleaving to AlignSLM-7B were trained on text or
preferences as well as speech."""
