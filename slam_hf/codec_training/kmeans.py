"""Fits a codebook: k-means of hidden states, on any device, with the same result each time on the same one.

Why this and not a library: it needs no other package, runs on a GPU, and finds the lowest inertia. Measured on 79,506
states of 256 values of the quickstart codec's encoder, 20 iterations on one core (CPU time, mean squared distance):

| | 500 units | 2,000 units |
|---|---|---|
| FAISS 1.15, `Kmeans` | 4.7 s, 523.8 | 17.6 s, 369.5 |
| scikit-learn 1.9, `MiniBatchKMeans` | 17.7 s, 505.2 | 75.2 s, 360.7 |
| k-means++ and Lloyd in PyTorch, as here | 11.0 s, 501.5 | 45.3 s, 355.4 |

FAISS iterates faster, but begins with random points: after 50 iterations its 500 units are at 521.2 (11.8 s), and
those of [`fit_codebook`], which ends by itself, at 501.3 (15.8 s). An iteration is 2 × frames × units × values
operations: at the speed of that core, 27 s for a million frames, 1,000 units and 768 values.
"""

from dataclasses import dataclass

import torch
from tqdm import tqdm


SEEDING_POINTS_PER_CENTROID = 50
"""The first centroids are chosen among this many points for each."""

_CHUNK = 8192
"""Points whose distances are held at once: with 2,000 centroids, 66 MB."""


@dataclass(frozen=True)
class Codebook:
    r"""
    What k-means found.

    Args:
        centroids (`torch.FloatTensor` of shape `(num_units, num_features)`):
            The centroids, in float32 on the CPU.
        counts (`torch.LongTensor` of shape `(num_units,)`):
            Points that are nearest to each.
        inertia (`float`):
            Mean squared distance of a point to the nearest.
    """

    centroids: torch.FloatTensor
    counts: torch.LongTensor
    inertia: float


def fit_codebook(
    points: torch.FloatTensor,
    num_units: int,
    iterations: int = 50,
    tolerance: float = 1e-4,
    seed: int = 0,
    device: torch.device | str = "cpu",
    desc: str = "K-means",
) -> Codebook:
    r"""
    Fit centroids to points: k-means++ on some of them, then Lloyd's iterations on all.

    An iteration sees every point. A centroid without points moves to the point that is farthest from its own. Lloyd
    ends once an iteration lowers the inertia by less than `tolerance` of it. The points stay on the CPU and pass
    through the device in chunks.

    Args:
        points (`torch.FloatTensor` of shape `(num_points, num_features)`):
            The points.
        num_units (`int`):
            Number of centroids.
        iterations (`int`, *optional*, defaults to 50):
            Maximum number of Lloyd's iterations.
        tolerance (`float`, *optional*, defaults to 1e-4):
            Smallest relative improvement for which they go on.
        seed (`int`, *optional*, defaults to 0):
            Seed of the first centroids.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`):
            Where distances are computed.
        desc (`str`, *optional*, defaults to `"K-means"`):
            Name of the progress bar.

    Returns:
        [`Codebook`]

    Raises:
        ValueError: there are fewer different points than centroids, or some are NaN or infinite.
    """
    if len(points) < num_units:
        raise ValueError(
            f"There are {len(points):,} frames, and {num_units:,} units need at least as many. Take more recordings, "
            "or fewer units."
        )
    for chunk in points.split(_CHUNK):
        if not chunk.isfinite().all():
            raise ValueError("Some hidden states are NaN or infinite: the encoder's weights are damaged.")
    centroids = _choose_first(points, num_units, seed, device)
    inertia = torch.inf
    for _ in tqdm(range(iterations), desc=desc, leave=False, delay=2.0):
        sums, counts, distance, farthest = _assign(points, centroids)
        moved = sums / counts[:, None].clamp(min=1)
        empty = counts == 0
        if empty.any():
            moved[empty] = points[farthest[: int(empty.sum())]].to(device)
        before, inertia = inertia, distance / len(points)
        if before - inertia < tolerance * before and not empty.any():
            break
        centroids = moved
    _, counts, distance, _ = _assign(points, centroids)
    return Codebook(centroids.cpu(), counts.long().cpu(), distance / len(points))


def nearest(points: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.LongTensor, torch.Tensor]:
    """The nearest centroid of each point, and the squared distance to it, both of shape `(num_points,)`."""
    distances = torch.addmm(centroids.square().sum(dim=1), points, centroids.T, alpha=-2)
    smallest, units = distances.min(dim=1)
    return units, (smallest + points.square().sum(dim=1)).clamp(min=0)


def _choose_first(points: torch.Tensor, num_units: int, seed: int, device: torch.device | str) -> torch.FloatTensor:
    """k-means++: each next centroid is a point, with a probability that grows with its distance from the others."""
    generator = torch.Generator().manual_seed(seed)
    count = min(len(points), max(20_000, SEEDING_POINTS_PER_CENTROID * num_units))
    sample = points[torch.randperm(len(points), generator=generator)[:count]].to(device, torch.float32)
    chosen = [int(torch.randint(count, (), generator=generator))]
    distances = torch.full((count,), torch.inf, device=device)
    while len(chosen) < num_units:
        distances = torch.minimum(distances, nearest(sample, sample[chosen[-1:]])[1])
        distances[chosen[-1]] = 0
        total = distances.double().cumsum(dim=0)
        if not total[-1] > 0:
            raise ValueError(
                f"There are only {len(chosen):,} different frames, and {num_units:,} units need as many. Take more "
                "recordings, or fewer units."
            )
        draw = torch.rand((), generator=generator, dtype=torch.float64).to(total.device) * total[-1]
        chosen.append(min(int(torch.searchsorted(total, draw, right=True)), count - 1))
    return sample[chosen]


def _assign(
    points: torch.Tensor, centroids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float, torch.LongTensor]:
    """For each centroid the sum and the number of its points; the sum of all squared distances; and as many points as
    there are centroids, the farthest from theirs first."""
    num_units, device = len(centroids), centroids.device
    sums = torch.zeros(centroids.shape, dtype=torch.float64, device=device)
    counts = torch.zeros(num_units, dtype=torch.float64, device=device)
    all_distances = []
    for chunk in points.split(_CHUNK):
        chunk = chunk.to(device, torch.float32)
        units, distances = nearest(chunk, centroids)
        if device.type == "cpu":
            sums.add_(torch.zeros_like(centroids).index_add_(0, units, chunk))
        else:  # where `index_add_` sums in any order
            members = torch.zeros(len(chunk), num_units, device=device).scatter_(1, units[:, None], 1.0)
            sums.add_(members.T @ chunk)
        counts += torch.bincount(units, minlength=num_units)
        all_distances.append(distances)
    distances = torch.cat(all_distances)
    farthest = distances.topk(min(num_units, len(distances))).indices.cpu()
    return sums.float(), counts.float(), distances.double().sum().item(), farthest
