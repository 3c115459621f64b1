"""The losses once more, as their formulas read: loops over images, classes and pixels in float64.

Nothing here comes from the package and nothing is clever, so that an error in one is not an error
in the other. An oracle takes NumPy arrays and every keyword parameter of its loss and returns an
array. ``GRADIENTS`` holds gradients derived by hand; :func:`numerical_gradient` serves the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ORACLES: dict[str, Callable[..., np.ndarray]] = {}
GRADIENTS: dict[str, Callable[..., np.ndarray]] = {}


def oracle(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Enter an oracle under the name of its loss."""
    ORACLES[function.__name__] = function
    return function


def gradient(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Enter ``gradient_of_<loss>``: the gradient of the reduced loss for the logits."""
    GRADIENTS[function.__name__.removeprefix("gradient_of_")] = function
    return function


# ------------------------------------------------------------------------------------------ parts


def read(
    logits: np.ndarray,
    target: np.ndarray,
    multilabel: bool,
    ignore_index: int | None,
    pixel_weight: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, truth and weight of every image, class and pixel: three (N, C, P) arrays."""
    images, classes, *space = logits.shape
    pixels = math.prod(space)
    logits = np.asarray(logits, np.float64).reshape(images, classes, pixels)
    soft = np.issubdtype(target.dtype, np.floating)
    per_channel = soft or multilabel
    target = target.reshape(images, classes if per_channel else 1, pixels)
    z, y, w = (np.zeros((images, classes, pixels)) for _ in range(3))
    for n, c, i in np.ndindex(images, classes, pixels):
        value = target[n, c if per_channel else 0, i]
        w[n, c, i] = 1 if pixel_weight is None else pixel_weight.reshape(images, pixels)[n, i]
        if ignore_index is not None and int(value) == ignore_index:
            w[n, c, i] = 0
        if w[n, c, i] == 0:  # whatever stands there, NaN included, is not looked at
            continue
        z[n, c, i] = logits[n, c, i]
        if soft:
            y[n, c, i] = value
        elif multilabel or classes == 1:
            y[n, c, i] = int(value)
        else:
            y[n, c, i] = int(value) == c
    return z, y, w


def log_sigmoid(z: float) -> float:
    """Return log(1 / (1 + exp(-z))) without overflow."""
    return min(z, 0.0) - math.log1p(math.exp(-abs(z)))


def sigmoid(z: float) -> float:
    """Return 1 / (1 + exp(-z)) without overflow."""
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def log_softmax(z: Sequence[float]) -> list[float]:
    """Return the logarithm of exp(z_c) / sum_k exp(z_k) for every c."""
    top = max(z)
    total = math.log(math.fsum(math.exp(v - top) for v in z))
    return [v - top - total for v in z]


def probabilities(z: np.ndarray, multilabel: bool) -> np.ndarray:
    """Sigmoid of one channel or of independent channels, else softmax over the classes."""
    p = np.zeros_like(z)
    for n, i in np.ndindex(z.shape[0], z.shape[2]):
        if z.shape[1] == 1 or multilabel:
            p[n, :, i] = [sigmoid(v) for v in z[n, :, i]]
        else:
            p[n, :, i] = [math.exp(v) for v in log_softmax(z[n, :, i])]
    return p


def through_activation(to_p: np.ndarray, p: np.ndarray, multilabel: bool) -> np.ndarray:
    """Turn a gradient for probabilities into one for logits."""
    to_z = np.zeros_like(p)
    for n, c, i in np.ndindex(*p.shape):
        if p.shape[1] == 1 or multilabel:
            to_z[n, c, i] = to_p[n, c, i] * p[n, c, i] * (1 - p[n, c, i])
        else:
            mean = math.fsum(to_p[n, k, i] * p[n, k, i] for k in range(p.shape[1]))
            to_z[n, c, i] = p[n, c, i] * (to_p[n, c, i] - mean)
    return to_z


def mean_of(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return sum(w v) / sum(w), and 0 where nothing counts."""
    total = math.fsum(weights.flat)
    return np.array(math.fsum((weights * values).flat) / total if total > 0 else 0.0)


def reduce(values: np.ndarray, weights: np.ndarray, reduction: str) -> np.ndarray:
    """Reduce weighted values: "none" keeps w v, so that mean = none.sum() / w.sum()."""
    if reduction == "none":
        return weights * values
    if reduction == "sum":
        return np.array(math.fsum((weights * values).flat))
    return mean_of(values, weights)


def reduce_pixels(
    values: np.ndarray,
    weights: np.ndarray,
    shape: tuple[int, ...],
    multilabel: bool,
    reduction: str,
) -> np.ndarray:
    """Reduce one value per pixel: (N, 1, P), or (N, C, P) for multilabel targets."""
    result = reduce(values, weights, reduction)
    if reduction == "none":
        result = result.reshape(shape if multilabel else (shape[0], *shape[2:]))
    return result


def pixel_scale(weights: np.ndarray, reduction: str) -> np.ndarray:
    """Return what one unit of a pixel's loss adds to the reduced loss."""
    total = math.fsum(weights.flat)
    if reduction == "sum" or total == 0:
        return weights
    return weights / total


def regions(images: int, classes: int, aggregate: str, include_background: bool) -> list[list]:
    """Return the rows of the unreduced result: each a list of (class, images to sum over)."""
    groups = [list(range(images))] if aggregate == "batch" else [[n] for n in range(images)]
    first = 0 if include_background else 1
    return [[(c, group) for c in range(first, classes)] for group in groups]


def region_weight(
    y: np.ndarray,
    w: np.ndarray,
    c: int,
    group: list[int],
    class_weight: Sequence[float] | None,
    absent: str,
) -> float:
    """Return the weight of a region in the mean: 0 for one without a pixel that counts."""
    cells = [(n, i) for n in group for i in range(w.shape[2])]
    if not any(w[n, c, i] > 0 for n, i in cells):
        return 0.0
    if absent == "skip" and not any(w[n, c, i] * y[n, c, i] > 0 for n, i in cells):
        return 0.0
    return 1.0 if class_weight is None else float(class_weight[c])


def numerical_gradient(
    function: Callable[..., np.ndarray],
    logits: np.ndarray,
    *rest: Any,
    step: float = 1e-3,
    **named: Any,
) -> np.ndarray:
    """Differentiate a scalar oracle for its logits by five-point central differences."""
    slope = np.zeros(logits.shape)
    for place in np.ndindex(*logits.shape):
        values = []
        for steps in (-2, -1, 1, 2):
            moved = np.array(logits, np.float64)
            moved[place] += steps * step
            values.append(float(function(moved, *rest, **named)))
        slope[place] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return slope


# ----------------------------------------------------------------------------------- distribution


@oracle
def binary_cross_entropy(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: np.ndarray | None = None,
    reduction: str = "mean",
) -> np.ndarray:
    """Return -[y log p + (1 - y) log(1 - p)] of every pixel."""
    z, y, w = read(logits, target, multilabel, ignore_index, pixel_weight)
    loss = np.zeros_like(z)
    for n, c, i in np.ndindex(*z.shape):
        log_p, log_not_p = log_sigmoid(z[n, c, i]), log_sigmoid(-z[n, c, i])
        loss[n, c, i] = -(y[n, c, i] * log_p + (1 - y[n, c, i]) * log_not_p)
    return reduce_pixels(loss, w, logits.shape, multilabel, reduction)


@gradient
def gradient_of_binary_cross_entropy(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: np.ndarray | None = None,
    reduction: str = "mean",
) -> np.ndarray:
    """Return p - y: with log p = -log(1 + exp(-z)), d(-y log p - (1 - y) log(1 - p))/dz."""
    z, y, w = read(logits, target, multilabel, ignore_index, pixel_weight)
    slope = np.zeros_like(z)
    for n, c, i in np.ndindex(*z.shape):
        # (1 - y) p - y (1 - p) is p - y without its cancellation
        zi, yi = z[n, c, i], y[n, c, i]
        slope[n, c, i] = (1 - yi) * sigmoid(zi) - yi * sigmoid(-zi)
    return (slope * pixel_scale(w, reduction)).reshape(logits.shape)


@oracle
def cross_entropy(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: np.ndarray | None = None,
    reduction: str = "mean",
) -> np.ndarray:
    """Return -sum_c y_c log p_c of every pixel; yes-or-no questions are two classes."""
    z, y, w = read(logits, target, multilabel, ignore_index, pixel_weight)
    if z.shape[1] == 1 or multilabel:
        loss = np.zeros_like(z)
        for n, c, i in np.ndindex(*z.shape):
            no, yes = log_softmax([0.0, z[n, c, i]])
            loss[n, c, i] = -(y[n, c, i] * yes + (1 - y[n, c, i]) * no)
        return reduce_pixels(loss, w, logits.shape, multilabel, reduction)
    images, classes, pixels = z.shape
    loss = np.zeros((images, 1, pixels))
    for n, i in np.ndindex(images, pixels):
        log_p = log_softmax(z[n, :, i])
        loss[n, 0, i] = -math.fsum(y[n, c, i] * log_p[c] for c in range(classes) if y[n, c, i])
    return reduce_pixels(loss, w[:, :1], logits.shape, multilabel, reduction)


@gradient
def gradient_of_cross_entropy(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: np.ndarray | None = None,
    reduction: str = "mean",
) -> np.ndarray:
    """Return p_c sum_k y_k - y_c, because d log p_k / dz_c is [k = c] - p_c."""
    z, y, w = read(logits, target, multilabel, ignore_index, pixel_weight)
    p = probabilities(z, multilabel)
    exclusive = z.shape[1] > 1 and not multilabel
    slope = np.zeros_like(z)
    for n, c, i in np.ndindex(*z.shape):
        mass = math.fsum(y[n, :, i]) if exclusive else 1.0
        slope[n, c, i] = p[n, c, i] * mass - y[n, c, i]
    scale = pixel_scale(w[:, :1] if exclusive else w, reduction)
    return (slope * scale).reshape(logits.shape)


# ----------------------------------------------------------------------------------------- region


@oracle
def dice_loss(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    squared: bool = False,
    smooth: float = 1.0,
    aggregate: str = "image",
    include_background: bool = True,
    class_weight: Sequence[float] | None = None,
    absent: str = "smooth",
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: np.ndarray | None = None,
    reduction: str = "mean",
    process_group: Any = None,
) -> np.ndarray:
    """Return (FP + FN) / (2 TP + FP + FN + s), or sum (p - y)^2 / (sum p^2 + sum y^2 + s)."""
    z, y, w = read(logits, target, multilabel, ignore_index, pixel_weight)
    p = probabilities(z, multilabel)
    losses, weights = [], []
    for row in regions(*z.shape[:2], aggregate, include_background):
        for c, group in row:
            error, size, volume = _dice_sums(p, y, w, c, group, squared)
            s = 0.0 if absent == "worst" and volume == 0 else smooth
            losses.append(error / (size + s) if size + s > 0 else 0.0)
            weights.append(region_weight(y, w, c, group, class_weight, absent))
    rows = 1 if aggregate == "batch" else z.shape[0]
    shape = (rows, z.shape[1] - (not include_background))
    return reduce(np.reshape(losses, shape), np.reshape(weights, shape), reduction)


@gradient
def gradient_of_dice_loss(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    squared: bool = False,
    smooth: float = 1.0,
    aggregate: str = "image",
    include_background: bool = True,
    class_weight: Sequence[float] | None = None,
    absent: str = "smooth",
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: np.ndarray | None = None,
    reduction: str = "mean",
    process_group: Any = None,
) -> np.ndarray:
    """Differentiate L = E / D, dL/dp = (dE/dp - L dD/dp) / D, then pass through the activation."""
    z, y, w = read(logits, target, multilabel, ignore_index, pixel_weight)
    p = probabilities(z, multilabel)
    cells = [cell for row in regions(*z.shape[:2], aggregate, include_background) for cell in row]
    weights = np.array([region_weight(y, w, c, g, class_weight, absent) for c, g in cells])
    total = math.fsum(weights)
    scales = weights / total if reduction == "mean" and total > 0 else weights
    to_p = np.zeros_like(p)
    for (c, group), scale in zip(cells, scales, strict=True):
        error, size, volume = _dice_sums(p, y, w, c, group, squared)
        denominator = size + (0.0 if absent == "worst" and volume == 0 else smooth)
        if denominator == 0:
            continue
        loss = error / denominator
        for n in group:
            for i in range(p.shape[2]):
                pi, yi, wi = p[n, c, i], y[n, c, i], w[n, c, i]
                to_error = 2 * (pi - yi) if squared else (pi > yi) - float(pi < yi)
                to_size = 2 * pi if squared else 1.0
                to_p[n, c, i] = scale * wi * (to_error - loss * to_size) / denominator
    return through_activation(to_p, p, multilabel).reshape(logits.shape)


def _dice_sums(
    p: np.ndarray, y: np.ndarray, w: np.ndarray, c: int, group: list[int], squared: bool
) -> tuple[float, float, float]:
    """Return the error, the size (the denominator without smoothing) and the true volume."""
    tp = fp = fn = volume = squares = sizes = 0.0
    for n in group:
        for i in range(p.shape[2]):
            pi, yi, wi = p[n, c, i], y[n, c, i], w[n, c, i]
            both = min(pi, yi)  # for yi in {0, 1} this is pi * yi
            tp += wi * both
            fp += wi * (pi - both)
            fn += wi * (yi - both)
            volume += wi * yi
            squares += wi * (pi - yi) ** 2
            sizes += wi * (pi**2 + yi**2)
    return (squares, sizes, volume) if squared else (fp + fn, 2 * tp + fp + fn, volume)
