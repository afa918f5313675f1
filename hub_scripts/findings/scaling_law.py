"""Fits the loss of models to their parameters and training tokens, and finds the best use of a training compute."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from slam_hf.training.throughput import flops_per_token


HUBER_DELTA = 0.03
"""Errors of log loss above it count linearly: that of Cuervo and Marxer. Hoffmann et al. take 0.001, which is less
than the noise of short runs."""

MAX_EXPONENT = 3.0

LEAST_FITTED = 6
"""Runs that a law can be fitted to: one more than its constants."""

MIN_RUNS = 8
"""Runs that can be resampled, and that say how far the law is wrong."""

REPETITION = 25.0
"""R*_D of Muennighoff et al. (arXiv 2305.16264), as Cuervo and Marxer fitted it to speech: how many repetitions of a
corpus are worth something."""


@dataclass(frozen=True)
class ScalingLaw:
    r"""
    The loss after one pass over `tokens` tokens, E + A / parameters^α + B / tokens^β (Hoffmann et al., arXiv
    2203.15556).

    Args:
        E, A, alpha, B, beta (`float`):
            Its constants. The loss is in nats per token.
    """

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def loss(self, parameters: ArrayLike, tokens: ArrayLike) -> np.ndarray:
        """The loss of models with `parameters` parameters after `tokens` tokens."""
        return self.E + self.A / np.power(parameters, self.alpha) + self.B / np.power(tokens, self.beta)

    @property
    def size_exponent(self) -> float:
        """`float`: a: the best number of parameters grows as compute^a, and the best number of tokens as
        compute^(1 - a)."""
        return self.beta / (self.alpha + self.beta)

    def optimum(self, flops: float) -> tuple[float, float]:
        """The parameters and the tokens of the lowest loss with a training compute of `flops`, 6 for each parameter
        and token. There is at least one of both: a law of noise may be lowest beyond."""
        products = math.log(flops / flops_per_token(1))
        log_ratio = math.log(self.alpha * self.A) - math.log(self.beta * self.B)
        log_parameters = log_ratio / (self.alpha + self.beta) + self.size_exponent * products
        log_parameters = min(max(log_parameters, 0.0), products)
        return math.exp(log_parameters), math.exp(products - log_parameters)

    def optimum_of_corpus(self, flops: float, tokens_per_pass: float) -> tuple[float, float]:
        """The same if all tokens come from one corpus, whose further passes are worth less: more parameters then."""
        from scipy.optimize import minimize_scalar

        products = flops / flops_per_token(1)

        def loss(log_parameters: float) -> float:
            parameters = math.exp(log_parameters)
            return float(self.loss(parameters, effective_tokens(products / parameters, tokens_per_pass)))

        # Equal ends are those of a law whose best model sees one token.
        bounds = sorted((math.log(self.optimum(flops)[0]), math.log(products)))
        found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
        return math.exp(found.x), products / math.exp(found.x)


CUERVO_AND_MARXER = ScalingLaw(E=1.73, A=13.9, alpha=0.25, B=39.8, beta=0.24)
"""Of speech language models of 20 M to 823 M parameters (arXiv 2404.00685, table 5)."""


def effective_tokens(tokens: ArrayLike, tokens_per_pass: ArrayLike) -> np.ndarray:
    """How many new tokens `tokens` tokens of several passes over a corpus are worth (Muennighoff et al.)."""
    repetitions = np.maximum(np.divide(tokens, tokens_per_pass) - 1, 0)
    worth = np.minimum(tokens, tokens_per_pass)
    return worth + np.multiply(tokens_per_pass, REPETITION * -np.expm1(-repetitions / REPETITION))


def check_runs(parameters: Sequence[float], tokens: Sequence[float], least: int = MIN_RUNS) -> None:
    """Raise a `ValueError` if runs are too few to fit the five constants of a law."""
    counts = len(parameters), len(set(parameters)), len(set(tokens))
    if counts[0] < least or min(counts[1:]) < 3:
        raise ValueError(
            f"A scaling law needs {least} runs or more, of 3 sizes and of 3 numbers of tokens or more, got "
            f"{counts[0]} run(s) of {counts[1]} size(s) and {counts[2]} number(s) of tokens."
        )


def fit(parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike, near: ScalingLaw | None = None) -> ScalingLaw:
    r"""
    Fit a law to runs: the least Huber loss of the error of log loss, the third approach of Hoffmann et al.

    Args:
        parameters, tokens, losses (`Sequence[float]` of shape `(runs,)`):
            The runs.
        near ([`ScalingLaw`], *optional*):
            Start from this law instead of from many.

    Raises:
        ValueError: the runs are too few.
    """
    from scipy.optimize import least_squares  # the other findings do without it

    check_runs(list(parameters), list(tokens), LEAST_FITTED)
    sizes, lengths, targets = (np.log(np.asarray(values, dtype=float)) for values in (parameters, tokens, losses))
    # The logs of the three terms are E, a - α·size and b - β·length. Centred, the errors of a and α are independent.
    size, length = sizes.mean(), lengths.mean()
    sizes, lengths = sizes - size, lengths - length

    def terms(point: np.ndarray) -> np.ndarray:
        floor, of_size, alpha, of_length, beta = point
        return np.stack([np.full_like(sizes, floor), of_size - alpha * sizes, of_length - beta * lengths])

    def errors(point: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce(terms(point)) - targets

    def slopes(point: np.ndarray) -> np.ndarray:
        logs = terms(point)
        of_floor, of_size, of_length = np.exp(logs - np.logaddexp.reduce(logs))
        return np.stack([of_floor, of_size, -of_size * sizes, of_length, -of_length * lengths], axis=1)

    if near is None:
        level = targets.min()
        starts = [
            (
                level + math.log(floor),
                level + math.log((1 - floor) / 2),
                alpha,
                level + math.log((1 - floor) / 2),
                beta,
            )
            for floor, alpha, beta in product((0.1, 0.5, 0.9), (0.2, 0.7), (0.2, 0.7))
        ]
    else:
        log_a, log_b = np.log([near.A, near.B]) - (near.alpha * size, near.beta * length)
        starts = [(math.log(near.E), log_a, near.alpha, log_b, near.beta)]
    bounds = ([-20, -20, 1e-3, -20, 1e-3], [20, 20, MAX_EXPONENT, 20, MAX_EXPONENT])
    options = {"bounds": bounds, "loss": "huber", "f_scale": HUBER_DELTA, "ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14}
    found = [least_squares(errors, np.clip(start, *bounds), slopes, **options) for start in starts]
    floor, of_size, alpha, of_length, beta = min(found, key=lambda result: result.cost).x
    return ScalingLaw(
        E=math.exp(floor),
        A=math.exp(of_size + alpha * size),
        alpha=float(alpha),
        B=math.exp(of_length + beta * length),
        beta=float(beta),
    )


def resample(
    law: ScalingLaw, parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike, number: int
) -> list[ScalingLaw]:
    """Fit laws to runs that are drawn again and again from those of `law`, with replacement. Draws of fewer than six
    runs, three sizes or three numbers of tokens do not count."""
    runs = np.stack([parameters, tokens, losses], axis=1)
    rng, laws = np.random.default_rng(0), []
    while len(laws) < number:
        drawn = runs[rng.integers(len(runs), size=len(runs))]
        different = np.unique(drawn, axis=0)
        if len(different) >= LEAST_FITTED and min(len(np.unique(different[:, column])) for column in (0, 1)) >= 3:
            laws.append(fit(*drawn.T, near=law))
    return laws


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile interval of what resampled laws say."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def constants(law: ScalingLaw) -> dict[str, float]:
    """The constants of a law by name, and its exponent of compute."""
    return asdict(law) | {"a": law.size_exponent}
