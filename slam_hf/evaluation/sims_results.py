"""Cross-modal results of *Scaling Analysis of Interleaved Speech-Text Language Models* (arXiv 2504.02398), table 2."""

from .results_table import Row, Score


COLUMNS = [f"{kind}storycloze{direction}" for kind in "st" for direction in ("", "_s2t", "_t2s", "_t2t")]


def _row(model: str, compute: str, parameters: str, *scores: float) -> Row:
    cells = zip(COLUMNS, map(Score, scores), strict=True)
    return Row(model, f"{compute} FLOP", parameters, "?", dict(cells))


CROSS_MODAL = (
    _row("SpiritLM (multi-speaker)", "7.5e21", "7B", 62.80, 68.49, 62.63, 72.67, 90.01, 94.74, 79.77, 97.33),
    _row("SIMS Llama 3.2 (multi-speaker)", "5.9e19", "3.2B", 58.23, 66.10, 60.56, 73.01, 86.22, 90.37, 76.31, 96.26),
    _row("SIMS Qwen2.5 (multi-speaker)", "2e20", "1.5B", 55.80, 60.73, 58.28, 66.92, 83.87, 76.91, 71.73, 92.73),
    _row("SIMS Qwen2.5 (multi-speaker)", "2e20", "3B", 57.00, 61.38, 58.23, 65.47, 85.36, 75.16, 71.11, 88.88),
    _row("SIMS Qwen2.5 (multi-speaker)", "2e20", "7.6B", 58.73, 66.23, 60.10, 72.85, 87.67, 91.35, 76.11, 96.26),
    _row("SIMS Qwen2.5 (multi-speaker)", "6.86e20", "7.6B", 60.33, 67.73, 60.65, 72.47, 88.27, 93.29, 75.34, 95.67),
)
"""On the paper's multi-speaker versions of sStoryCloze and tStoryCloze. SpiritLM was trained 75 % longer than in its
own paper (arXiv 2402.05755)."""
