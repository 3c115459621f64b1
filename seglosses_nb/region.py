r"""Region-based losses: sums over a region first, then a ratio.

One value per image and class (or per class over the whole batch). They compare masks, not pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .contract import Regions, check_flag, check_range, prepare, shortfall
from .registry import SegLoss, SpecialCase, register


@register(
    family="region",
    unit="region",
    summary="Compares two masks by their overlap, whatever their size: for small objects among "
    "much background.",
    formula=r"L = 1-\frac{2\,TP+s}{2\,TP+FP+FN+s}"
    r" = \frac{\sum_i|p_i-y_i|}{\sum_i p_i+\sum_i y_i+s}",
    cite="milletari2016vnet",
    equation="the equation of its Dice loss layer; ours with squared=True and smooth=0",
    value_range=(0.0, 1.0),
    special_cases=(
        SpecialCase(
            "the squared form, on a prediction of zeros and ones",
            kind="binary",
            left=lambda z, y: dice_loss(1e3 * z.sign(), y),
            right=lambda z, y: dice_loss(1e3 * z.sign(), y, squared=True),
        ),
        SpecialCase(
            "aggregate='batch', with a single image",
            kind="multiclass",
            left=lambda z, y: dice_loss(z[:1], y[:1]),
            right=lambda z, y: dice_loss(z[:1], y[:1], aggregate="batch"),
        ),
    ),
    deviations=(
        "The paper maximises the squared coefficient of one class; the default here is linear, "
        "1 - D, the mean over classes and images, with a smoothing term.",
        "Soft targets: TP = sum min(p, y), so that p = y is the minimum; with sum p y it is not.",
    ),
    aliases={"MONAI": "DiceLoss", "kornia": "dice_loss"},
)
def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    squared: bool = False,
    smooth: float = 1.0,
    aggregate: str = "image",
    include_background: bool = True,
    class_weight: Tensor | Sequence[float] | None = None,
    absent: str = "smooth",
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: Tensor | None = None,
    reduction: str = "mean",
    process_group: Any = None,
) -> Tensor:
    r"""Compare prediction and truth by their overlap: one minus the soft Dice coefficient.

    .. math:: L = 1-\frac{2\,TP+s}{2\,TP+FP+FN+s}
        = \frac{\sum_i |p_i-y_i|}{\sum_i p_i+\sum_i y_i+s}

    with :math:`TP=\sum\min(p_i,y_i)`, which is :math:`\sum p_i y_i` for masks. The squared form of
    the V-Net paper is :math:`\sum(p_i-y_i)^2/(\sum p_i^2+\sum y_i^2+s)`.

    Shape:
        logits (N, C, \*space); target (N, \*space) labels or values of the logits' shape. Returns
        a scalar; with ``reduction="none"`` (N, C), or (1, C) with ``aggregate="batch"``, one
        channel fewer without background.

    Args:
        logits: raw output of the network: sigmoid for one channel, softmax for more.
        target: integer labels, or floating values in [0, 1].
        squared: use the squared form.
        smooth: the smoothing term s >= 0, in pixels; it decides what a false positive costs where
            the class is absent: :math:`FP/(FP+s)`.
        aggregate: sum over each "image", or over the whole "batch" (batch Dice).
        include_background: ``False`` leaves class 0 of a multiclass target out.
        class_weight: (C,), >= 0; the mean becomes :math:`\sum w_c L_c/\sum w_c`.
        absent: a class the target lacks: "smooth" leaves it to the formula. "skip" takes it out of
            the mean; in a softmax its false positives still cost the classes that are there,
            elsewhere they are free. "worst" gives it 1 as soon as anything is predicted, with
            practically no gradient: for scores, not for training.
        multilabel: take the channels as independent masks, each with its own sigmoid.
        ignore_index: label of the pixels to leave out.
        pixel_weight: (N, \*space), >= 0: a pixel of weight 2 counts as two.
        reduction: "mean", "sum" or "none".
        process_group: with ``aggregate="batch"``, sum over all ranks of this group ("world": of
            all there are). Every rank must call the loss, or the others wait.

    Returns:
        The loss, in [0, 1]; float32 for half-precision logits.

    Edge cases:
        Empty target: FP / (FP + s), with a gradient that fades as FP grows. Both empty: 0, also
        with s = 0. All pixels ignored: 0, without gradient; such an image is not in the mean.

    Special cases:
        On zeros and ones both forms agree and, with s = 0, are 1 - F1. With one image "image"
        and "batch" agree.

    Differs from:
        Milletari et al. (2016) have squares and no s. MONAI 1.6.1 takes the product as TP and
        s = 1e-5; kornia 0.9.0 sums over the classes unless ``average="macro"``.

    Raises:
        ValueError: ``smooth`` < 0, or what :func:`~.contract.prepare` and
            :class:`~.contract.Regions` find.
        TypeError: wrong dtypes.

    Example:
        >>> import torch
        >>> z = torch.tensor([[[9e2, 9e2, 9e2, -9e2]], [[-9e2] * 4]])  # 1 TP, 2 FP; nothing
        >>> y = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0]])
        >>> dice_loss(z, y, smooth=0.0).item()  # the mean of 2/4 and 1/1
        0.75
        >>> round(dice_loss(z, y, smooth=0.0, aggregate="batch").item(), 4)  # 3/5
        0.6

    Cite:
        Milletari, Navab & Ahmadi (2016), V-Net; the coefficient: Dice (1945).
    """
    check_flag("dice_loss", "squared", squared)
    check_range("dice_loss", "smooth", smooth, 0)
    batch = prepare(
        "dice_loss",
        logits,
        target,
        multilabel=multilabel,
        ignore_index=ignore_index,
        pixel_weight=pixel_weight,
        reduction=reduction,
        tell_hard=not squared,
    )
    regions = Regions(
        batch,
        aggregate=aggregate,
        include_background=include_background,
        class_weight=class_weight,
        absent=absent,
        process_group=process_group,
    )
    if squared:
        p, y = regions.probabilities(), regions.truth()
        overlap, predicted, volume = regions.sums(p * y, p**2, y**2)
    else:
        overlap, predicted, volume = regions.overlap_sums()
    smooth = regions.smoothing(smooth, volume)
    loss = shortfall(2 * overlap + smooth, predicted + (volume + smooth))
    return regions.reduce(loss, volume)


class DiceLoss(SegLoss, fn=dice_loss): ...
