"""Training targets of the student: k-means clusters of the teacher's states, and their principal components."""

import numpy as np
import torch


NUM_COMPONENTS = 128


def remove_speakers(states: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """States minus the mean of their speaker. With little speech, it is pulled to the global one."""
    states = states - states.mean(0)
    result = np.empty_like(states)
    for speaker in np.unique(speakers):
        rows = speakers == speaker
        result[rows] = states[rows] - states[rows].sum(0) / (rows.sum() + 250)
    return result


def principal_components(states: np.ndarray) -> np.ndarray:
    """The directions of largest variance: an array of shape `(num_features, NUM_COMPONENTS)`."""
    _, directions = np.linalg.eigh(np.cov(states.T))
    return np.ascontiguousarray(directions[:, ::-1][:, :NUM_COMPONENTS].astype(np.float32))


def fit_kmeans(points: np.ndarray, num_clusters: int, iterations: int = 20, seed: int = 0) -> np.ndarray:
    """Centroids of shape `(num_clusters, num_features)`: k-means++ on 20,000 of the points, then Lloyd on all."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.from_numpy(points)
    sample = data[torch.randperm(len(data), generator=generator)[:20_000]]
    centroids = sample[:1]
    distances = (sample - centroids).square().sum(1)
    while len(centroids) < num_clusters:
        chosen = sample[torch.multinomial(distances, 1, generator=generator)]
        centroids = torch.cat([centroids, chosen])
        distances = torch.minimum(distances, (sample - chosen).square().sum(1))
    for _ in range(iterations):
        labels = torch.from_numpy(assign(points, centroids.numpy()))
        counts = torch.bincount(labels, minlength=num_clusters)[:, None]
        sums = torch.zeros_like(centroids).index_add_(0, labels, data)
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    return centroids.numpy()


def assign(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest centroid of each point, as int64."""
    book = torch.from_numpy(centroids)
    squares = book.square().sum(1)
    chunks = torch.from_numpy(points).split(20_000)
    return torch.cat([torch.addmm(squares, chunk, book.T, alpha=-2).argmin(1) for chunk in chunks]).numpy()
