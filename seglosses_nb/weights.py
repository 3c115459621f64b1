"""Weights for imbalanced data: one number per class, from the labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Scheme = Literal["balanced", "inverse_frequency", "median_frequency", "effective_number"]


def class_counts(target: Tensor, num_classes: int, *, ignore_index: int | None = None) -> Tensor:
    """Count the pixels of every class: (num_classes,), int64.

    Args:
        target: integer or bool labels of any shape.
        num_classes: number of classes C; labels lie in [0, C).
        ignore_index: label of the pixels to leave out.

    Raises:
        TypeError: the labels are not integer or bool.
        ValueError: ``num_classes`` < 1, or a label outside [0, C).

    Example:
        >>> import torch
        >>> class_counts(torch.tensor([[0, 0, 2], [0, 1, 255]]), 3, ignore_index=255)
        tensor([3, 1, 1])
    """
    if not isinstance(target, Tensor) or target.is_floating_point() or target.is_complex():
        got = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(
            f"class_counts: target is {got}, wanted a tensor of integer or bool labels; "
            "turn soft values into labels with argmax over the channels"
        )
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"class_counts: num_classes is {num_classes!r}, wanted an integer >= 1")
    labels = target.flatten().long()
    if ignore_index is not None:
        labels = labels[labels != ignore_index]
    if labels.numel():
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high >= num_classes:
            bad = high if high >= num_classes else low
            raise ValueError(
                f"class_counts: target holds the label {bad} but num_classes={num_classes} needs "
                f"labels in [0, {num_classes - 1}]; pass ignore_index={bad} to leave such pixels "
                "out, or a larger num_classes"
            )
    return torch.bincount(labels, minlength=num_classes)


def class_weights(
    target: Tensor,
    num_classes: int,
    scheme: Scheme = "balanced",
    *,
    ignore_index: int | None = None,
    absent: float = 0.0,
    beta: float = 0.9999,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Weights that let rare classes count as much as common ones: (num_classes,).

    With :math:`n_c` pixels of class c, n in all and K classes that occur:

    ==================  ==========================================================
    balanced            :math:`n/(K\,n_c)`, scikit-learn's "balanced"
    inverse_frequency   :math:`n/n_c`
    median_frequency    :math:`\operatorname{median}(n_1,\dots,n_K)/n_c`
    effective_number    :math:`(1-\beta)/(1-\beta^{n_c})`, scaled to a mean of 1
    ==================  ==========================================================

    Compute them once from the whole training set, not from each batch: per-batch weights give a
    pixel of a rare class another weight in every batch, and their mean is the loss of no data set.

    Args:
        target: integer or bool labels of any shape: the pixels to count.
        num_classes: number of classes C.
        scheme: one of the four above.
        ignore_index: label of the pixels to leave out of the counts.
        absent: weight of a class that does not occur, whose weight would be infinite; a warning
            names it. scikit-learn returns no entry for such a class, or raises.
        beta: for ``effective_number``, in [0, 1): 0 gives equal weights, 1 would give the inverse
            frequency.
        dtype: of the result.

    Raises:
        TypeError: the labels are not integer or bool.
        ValueError: unknown scheme, labels outside [0, C), ``beta`` outside [0, 1), ``absent`` not
            finite and >= 0, or no pixel to count.

    Example:
        >>> import torch
        >>> class_weights(torch.tensor([0, 1, 2, 1]), 3)
        tensor([1.3333, 0.6667, 1.3333])

    Cite:
        Balanced: as in scikit-learn, which calls it inspired by King & Zeng (2001). Median
        frequency: Eigen & Fergus (2015), who count a class only in the images that show it; here
        all pixels count. Effective number: Cui et al. (2019), scaled over the classes that occur.
    """
    counts = class_counts(target, num_classes, ignore_index=ignore_index)
    return _from_counts("class_weights", counts, scheme, absent, beta, dtype)


def weights_from_counts(
    counts: Tensor,
    scheme: Scheme = "balanced",
    *,
    absent: float = 0.0,
    beta: float = 0.9999,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Class weights from counts, such as those of many images added up: (num_classes,).

    Args:
        counts: pixels of each class, (num_classes,), >= 0.
        scheme, absent, beta, dtype: see :func:`class_weights`.

    Raises:
        TypeError: the counts are no tensor of numbers.
        ValueError: unknown scheme, a negative or infinite count, ``beta`` outside [0, 1),
            ``absent`` not finite and >= 0, or no pixel to count.

    Example:
        >>> import torch
        >>> images = [torch.tensor([0, 1]), torch.tensor([2, 1])]
        >>> weights_from_counts(sum(class_counts(image, 3) for image in images))
        tensor([1.3333, 0.6667, 1.3333])
    """
    return _from_counts("weights_from_counts", counts, scheme, absent, beta, dtype)


def _from_counts(
    name: str, counts: Tensor, scheme: str, absent: float, beta: float, dtype: torch.dtype
) -> Tensor:
    if scheme not in _SCHEMES:
        wanted = ", ".join(repr(s) for s in _SCHEMES)
        raise ValueError(f"{name}: scheme is {scheme!r}, wanted one of {wanted}")
    if not 0 <= beta < 1:
        raise ValueError(f"{name}: beta is {beta!r}, wanted 0 <= beta < 1")
    if not 0 <= absent < float("inf"):
        raise ValueError(f"{name}: absent is {absent!r}, wanted a finite weight >= 0")
    if not isinstance(counts, Tensor) or counts.dtype == torch.bool or counts.is_complex():
        got = counts.dtype if isinstance(counts, Tensor) else type(counts).__name__
        raise TypeError(f"{name}: counts are {got}, wanted a tensor, a number per class")
    if counts.ndim != 1 or not (counts >= 0).all() or counts.isinf().any():
        raise ValueError(
            f"{name}: counts have shape {tuple(counts.shape)}, wanted (num_classes,) finite "
            "numbers >= 0; class_counts counts labels"
        )
    present = counts > 0
    if not present.any():
        raise ValueError(
            f"{name}: there is no pixel to count; the target is empty, or all of it is ignored"
        )
    if not present.all():
        missing = (~present).nonzero().flatten().tolist()
        warnings.warn(
            f"{name}: class {missing} does not occur in target and gets weight {absent:g}; "
            "count over the whole training set, or choose another weight with absent=",
            stacklevel=3,
        )
    weights = torch.full_like(counts, float(absent), dtype=torch.float64)
    weights[present] = _SCHEMES[scheme](counts[present].double(), beta)
    return weights.to(dtype)


def pixel_weights(
    target: Tensor, weights: Tensor | Sequence[float], *, ignore_index: int | None = None
) -> Tensor:
    r"""Look up every pixel's weight by its class: :math:`w_{y_i}`, of the target's shape.

    With it every loss takes class weights:
    ``cross_entropy(z, y, pixel_weight=pixel_weights(y, w))`` is
    ``torch.nn.functional.cross_entropy(z, y, weight=w)``.

    Args:
        target: integer or bool labels of any shape.
        weights: one weight per class.
        ignore_index: label of the pixels that get weight 0; any value will do, inside the classes
            or not.

    Raises:
        TypeError: the labels are not integer or bool.
        ValueError: a label has no weight.

    Example:
        >>> import torch
        >>> pixel_weights(torch.tensor([[0, 1], [255, 0]]), [1.0, 20.0], ignore_index=255)
        tensor([[ 1., 20.],
                [ 0.,  1.]])
    """
    weights = torch.as_tensor(weights)
    if not weights.is_floating_point():
        weights = weights.to(torch.get_default_dtype())
    class_counts(target, len(weights), ignore_index=ignore_index)  # checks the labels
    labels = target.long()
    weights = weights.to(target.device)
    if ignore_index is None:
        return weights[labels]
    ignored = labels == ignore_index
    return weights[labels.masked_fill(ignored, 0)].masked_fill(ignored, 0)


def _effective_number(counts: Tensor, beta: float) -> Tensor:
    if beta == 0:
        return torch.ones_like(counts)
    log_beta = torch.tensor(beta, dtype=counts.dtype, device=counts.device).log()
    weights = 1 / -torch.expm1(counts * log_beta)  # the factor 1 - beta cancels in the scaling
    return weights / weights.mean()


_SCHEMES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "balanced": lambda counts, _: counts.sum() / (len(counts) * counts),
    "inverse_frequency": lambda counts, _: counts.sum() / counts,
    "median_frequency": lambda counts, _: counts.quantile(0.5) / counts,
    "effective_number": _effective_number,
}
