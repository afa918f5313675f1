"""Training targets of the student: k-means clusters of the teacher's states, and their principal components."""

import numpy as np
import torch

from slam_hf.codec_training.kmeans import nearest


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


def assign(points: np.ndarray, centroids: torch.Tensor) -> np.ndarray:
    """The nearest centroid of each point, as int64."""
    return torch.cat([nearest(chunk, centroids)[0] for chunk in torch.from_numpy(points).split(20_000)]).numpy()
