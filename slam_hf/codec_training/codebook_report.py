"""Measures the units of codebooks on held-out recordings, and draws what came out."""

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from transformers.utils import is_matplotlib_available

from ..encoding.ledger import ChunkKey, Ledger
from ..encoding.piece_batches import SAMPLE_SCALE
from ..modeling_hubert_unit_codec import HubertUnitCodec
from .disturbances import disturb
from .kmeans import nearest
from .measures import deduplicate, frame_labels, normalized_mutual_information, perplexity, unit_edit_rate


Choice = tuple[int, int]
"""A layer and a number of units."""


def read_held_out(ledger: Ledger, keys: Sequence[ChunkKey]) -> Iterator[dict[str, Any]]:
    """The rows of `VOICE_ROW_SCHEMA` in a ledger, with `audio` as waveforms in float32."""
    for key in keys:
        for row in ledger.read_rows(key).to_pylist():
            samples = np.frombuffer(row["audio"], np.int16).astype(np.float32) / SAMPLE_SCALE
            yield row | {"audio": torch.from_numpy(samples)}


class HeldOutUnits:
    r"""
    The units of recordings with several codebooks, and of the same recordings in other conditions.

    Args:
        codec ([`HubertUnitCodec`]):
            The encoder, up to the last layer that is needed.
        codebooks (`Mapping`):
            For each layer and number of units, the centroids of shape `(num_units, hidden_size)`.
    """

    def __init__(self, codec: HubertUnitCodec, codebooks: Mapping[Choice, torch.FloatTensor]):
        self.codec = codec
        self.codebooks = {choice: book.to(codec.device) for choice, book in codebooks.items()}
        self.rows: list[dict[str, Any]] = []
        self.units: dict[Choice, dict[str, list[np.ndarray]]] = {choice: defaultdict(list) for choice in codebooks}
        self.distances: dict[Choice, float] = dict.fromkeys(codebooks, 0.0)

    @torch.inference_mode()
    def add(self, row: dict[str, Any]) -> None:
        """Encode a row of [`read_held_out`]: all layers and codebooks at once."""
        self.rows.append({key: value for key, value in row.items() if key != "audio"})
        versions = {"clean": row["audio"], **disturb(row["id"], row["audio"], self.codec.sampling_rate)}
        layers = sorted({layer for layer, _ in self.codebooks})
        for version, waveform in versions.items():
            missing = self.codec.config.hop_length - len(waveform)  # of one frame, played faster
            waveform = torch.nn.functional.pad(waveform, (0, max(0, missing)))
            (states,) = self.codec.hidden_states(waveform[None], layers=layers, batched=False)
            for (layer, size), book in self.codebooks.items():
                units, distances = nearest(states[layers.index(layer)].float(), book)
                self.units[layer, size][version].append(units.cpu().numpy())
                if version == "clean":
                    self.distances[layer, size] += distances.double().sum().item()

    def measure(self, choice: Choice) -> dict[str, Any] | None:
        """The figures of a codebook, or `None` where no recording was held out."""
        if not self.rows:
            return None
        clean = self.units[choice]["clean"]
        num_frames = sum(map(len, clean))
        counts = np.bincount(np.concatenate(clean), minlength=choice[1])
        seconds = num_frames / self.codec.frame_rate
        others = {name: units for name, units in self.units[choice].items() if name != "clean"}
        edit_rates = {name: unit_edit_rate(clean, units) for name, units in others.items()}
        if pairs := self._voice_pairs():
            edit_rates["voice"] = unit_edit_rate([clean[i] for i, _ in pairs], [clean[j] for _, j in pairs])
        figures = {
            "num_recordings": len(self.rows),
            "seconds": seconds,
            "inertia": self.distances[choice] / num_frames,
            "used": int((counts > 0).sum()),
            "perplexity": perplexity(counts),
            "units_per_second": sum(len(deduplicate(units)) for units in clean) / seconds,
            "edit_rate": edit_rates,
            "num_voice_pairs": len(pairs),
        }
        aligned = [(units, row["aligned_text"]) for units, row in zip(clean, self.rows, strict=True)]
        aligned = [(units, words) for units, words in aligned if words]
        if aligned:
            labels = [frame_labels(words, len(units), self.codec.frame_rate) for units, words in aligned]
            labels = [label for row in labels for label in row]
            figures["num_labels"] = len(set(labels))
            units = np.concatenate([units for units, _ in aligned])
            figures["normalized_mutual_information"] = normalized_mutual_information(units, labels)
        return figures

    def _voice_pairs(self) -> list[tuple[int, int]]:
        """Pairs of recordings of the same text by different speakers."""
        by_text = defaultdict(list)
        for index, row in enumerate(self.rows):
            if row["text"] and row["speaker"] is not None:
                by_text[" ".join(row["text"].lower().split())].append(index)
        pairs = [pair for indices in by_text.values() for pair in combinations(indices, 2)]
        return [(i, j) for i, j in pairs if self.rows[i]["speaker"] != self.rows[j]["speaker"]]


def plot_report(report: Mapping[str, Any], counts: Mapping[Choice, torch.LongTensor]) -> bytes | None:
    """A PNG of the figures of each codebook, or `None` where matplotlib is missing."""
    if not is_matplotlib_available():
        return None
    from matplotlib.figure import Figure

    books = report["codebooks"]
    held_out = all(book["held_out"] for book in books)
    sizes, layers = (sorted({book[key] for book in books}) for key in ("num_units", "layer"))
    panels = {
        "explained variance": lambda book: book["explained_variance"],
        "perplexity / units": lambda book: book["perplexity"] / book["num_units"],
    }
    if held_out:
        panels["units per second"] = lambda book: book["held_out"]["units_per_second"]
        if all("normalized_mutual_information" in book["held_out"] for book in books):
            panels["mutual information with labels"] = lambda book: book["held_out"]["normalized_mutual_information"]
        for name in books[0]["held_out"]["edit_rate"]:
            panels[f"edit rate, {name}"] = lambda book, name=name: book["held_out"]["edit_rate"][name]
    columns = 4
    rows = -(-(len(panels) + 1) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.8 * rows), layout="constrained")
    axes = iter(figure.subplots(rows, columns, squeeze=False).flat)
    for (title, value), panel in zip(panels.items(), axes, strict=False):
        for size in sizes:
            points = sorted((book["layer"], value(book)) for book in books if book["num_units"] == size)
            panel.plot(*zip(*points, strict=True), marker="o", label=f"{size:,} units")
            for point in points:
                panel.annotate(f"{point[1]:.2g}", point, (0, 4), textcoords="offset points", ha="center", fontsize=7)
        panel.set(title=title, xlabel="layer", xticks=layers)
        panel.set_ylim(0, 1.2 * max(value(book) for book in books) or 1)
        panel.margins(x=0.2)
    panel = next(axes)
    for (_, size), numbers in counts.items():
        shares = np.sort(numbers.numpy())[::-1] / numbers.sum().item()
        panel.plot(np.arange(1, size + 1) / size, shares * size, color=f"C{sizes.index(size)}", linewidth=0.8)
    panel.axhline(1, color="grey", linewidth=0.8)
    panel.set(title="how often units are used", xlabel="share of the units", ylabel="times the mean", yscale="log")
    for rest in axes:
        rest.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(sizes), frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
