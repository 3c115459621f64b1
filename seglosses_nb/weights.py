"""Weights for imbalanced data: one number per class, from the labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
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

    Compute them once from the whole training set, not from each batch: per-batch weights make
    the loss jump with the luck of the draw.

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
        Balanced: King & Zeng (2001). Median frequency: Eigen & Fergus (2015), who count a class
        only in the images that show it; here all pixels count. Effective number: Cui et al. (2019).
    """
    if scheme not in _SCHEMES:
        wanted = ", ".join(repr(s) for s in _SCHEMES)
        raise ValueError(f"class_weights: scheme is {scheme!r}, wanted one of {wanted}")
    if not 0 <= beta < 1:
        raise ValueError(f"class_weights: beta is {beta!r}, wanted 0 <= beta < 1")
    if not 0 <= absent < float("inf"):
        raise ValueError(f"class_weights: absent is {absent!r}, wanted a finite weight >= 0")
    counts = class_counts(target, num_classes, ignore_index=ignore_index)
    present = counts > 0
    if not present.any():
        raise ValueError(
            "class_weights: target has no pixel to count; it is empty, or all of it is ignored"
        )
    if not present.all():
        missing = (~present).nonzero().flatten().tolist()
        warnings.warn(
            f"class_weights: class {missing} does not occur in target and gets weight {absent:g}; "
            "count over the whole training set, or choose another weight with absent=",
            stacklevel=2,
        )
    weights = torch.full((num_classes,), float(absent), dtype=torch.float64, device=counts.device)
    weights[present] = _SCHEMES[scheme](counts[present].double(), beta)
    return weights.to(dtype)


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
