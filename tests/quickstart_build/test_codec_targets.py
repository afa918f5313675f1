import numpy as np
from quickstart.codec import targets


def test_kmeans_finds_separate_clusters():
    rng = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], np.float32)
    points = (np.repeat(centers, 50, axis=0) + 0.1 * rng.standard_normal((150, 2))).astype(np.float32)
    centroids = targets.fit_kmeans(points, 3)
    labels = targets.assign(points, centroids)
    assert len(set(labels[:50])) == len(set(labels[50:100])) == len(set(labels[100:])) == 1
    assert len(set(labels)) == 3
    np.testing.assert_allclose(centroids[labels[[0, 50, 100]]], centers, atol=0.1)
