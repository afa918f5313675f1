import pytest
import torch

from slam_hf.codec_training.kmeans import fit_codebook, nearest


def make_groups(num_groups: int, size: int = 50, num_features: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(num_groups, num_features, generator=generator)
    points = centres.repeat_interleave(size, dim=0)
    return points + 0.1 * torch.randn(points.shape, generator=generator), centres


def test_groups_that_lie_apart_are_found():
    points, _ = make_groups(20)
    book = fit_codebook(points, 20)
    means = points.view(20, 50, 6).mean(dim=1)
    _, distances = nearest(means, book.centroids)
    assert distances.max() < 1e-3
    assert book.counts.tolist() == [50] * 20
    assert book.inertia == pytest.approx((points.view(20, 50, 6) - means[:, None]).square().sum(2).mean().item(), 1e-3)


def test_an_iteration_moves_each_centroid_to_the_mean_of_its_points():
    points = torch.tensor([[0.0], [1.0], [10.0], [12.0], [14.0]])
    book = fit_codebook(points, 2)
    assert sorted(book.centroids.flatten().tolist()) == [0.5, 12.0]
    assert sorted(book.counts.tolist()) == [2, 3]
    assert book.inertia == pytest.approx((0.25 + 0.25 + 4 + 0 + 4) / 5)


def test_no_unit_is_without_points(monkeypatch):
    points, _ = make_groups(8)
    same = points[:1].repeat(3, 1)  # three first centroids at one point: two of them have none
    first = torch.cat([same, points[50:51]])
    monkeypatch.setattr("slam_hf.codec_training.kmeans._choose_first", lambda *_: first.clone())
    assert (fit_codebook(points, 4).counts > 0).all()


def test_the_result_depends_on_the_seed_alone_and_not_on_chunks(monkeypatch):
    points = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    first, second, other = (fit_codebook(points, 16, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.centroids, second.centroids) and not torch.equal(first.centroids, other.centroids)
    monkeypatch.setattr("slam_hf.codec_training.kmeans._CHUNK", 33)
    torch.testing.assert_close(fit_codebook(points, 16, seed=3).centroids, first.centroids)


def test_the_inertia_is_that_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    points = torch.randn(2_000, 8, generator=torch.Generator().manual_seed(0))
    book = fit_codebook(points, 32, iterations=100)
    theirs = cluster.KMeans(32, n_init=5, random_state=0).fit(points.numpy()).inertia_ / len(points)
    assert book.inertia == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.randn(5, 3), "There are 5 frames, and 8 units need at least as many"),
        (torch.ones(20, 3), "There are only 1 different frames, and 8 units need as many"),
        (torch.ones(20, 3).index_fill(0, torch.tensor([7]), torch.nan), "hidden states are NaN or infinite"),
    ],
)
def test_points_that_cannot_be_clustered_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        fit_codebook(points, 8)
