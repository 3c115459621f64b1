r"""Distribution-based losses: every pixel is a draw, and the loss compares distributions.

One value per pixel, averaged. They do not know which pixels belong together.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import prepare, reduce_pixels, runs_eagerly
from .registry import SegLoss, SpecialCase, register


@register(
    family="distribution",
    unit="pixel",
    summary="Scores every pixel's probability by the logarithm: the proper default for yes-or-no "
    "questions.",
    formula=r"\ell_i = -\bigl[y_i\log p_i + (1-y_i)\log(1-p_i)\bigr],\quad p_i=\sigma(z_i)",
    cite="good1952rational",
    targets=("binary", "multilabel", "soft"),
    special_cases=(
        SpecialCase(
            "cross_entropy with two classes and logits (0, z)",
            kind="binary",
            left=lambda z, y: binary_cross_entropy(z, y),
            right=lambda z, y: cross_entropy(torch.cat([0 * z, z], 1), y),
            other="cross_entropy",
        ),
        SpecialCase(
            "itself with the classes swapped: (-z, 1 - y)",
            kind="binary",
            left=lambda z, y: binary_cross_entropy(z, y),
            right=lambda z, y: binary_cross_entropy(-z, 1 - y),
        ),
    ),
    deviations=("The paper's score is a reward, fixed up to a factor and a constant.",),
    aliases={"torch": "BCEWithLogitsLoss"},
)
def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Score the probability that each pixel is foreground by minus the logarithm.

    .. math:: \ell_i = -\bigl[y_i\log p_i + (1-y_i)\log(1-p_i)\bigr]
        = \log(1+e^{z_i}) - y_i z_i, \qquad p_i=\sigma(z_i)

    Shape:
        logits (N, 1, \*space), or (N, C, \*space) with ``multilabel=True``; target (N, \*space) or
        (N, 1, \*space) labels in {0, 1}, or values in [0, 1] of the logits' shape. Returns a
        scalar; with ``reduction="none"`` (N, \*space), multilabel (N, C, \*space).

    Args:
        logits: raw output of the network, before any sigmoid.
        target: integer or bool labels, or floating values in [0, 1].
        multilabel: take C > 1 channels as independent questions.
        ignore_index: label of the pixels to leave out.
        pixel_weight: (N, \*space), >= 0; the mean becomes
            :math:`\sum w_i\ell_i/\sum w_i`.
        reduction: "mean", "sum" or "none".

    Returns:
        The loss, >= 0, in nats; float32 for half-precision logits.

    Edge cases:
        Zero logits give log 2. Empty and full targets are nothing special. A soft target's
        minimum, at p = y, is its entropy, not 0. All pixels ignored: 0, without gradient.

    Special cases:
        ``cross_entropy`` with two classes and logits (0, z); itself under (-z, 1 - y).

    Differs from:
        ``torch.nn.BCELoss`` takes probabilities: it clamps the logarithm at -100, and its gradient
        dies where p is within 1e-12 of the wrong end.

    Raises:
        ValueError: C > 1 without ``multilabel=True``, or what :func:`~.contract.prepare` finds.
        TypeError: wrong dtypes.

    Example:
        >>> import torch
        >>> z = torch.tensor([[[2.19722458, 0.40546511, -1.38629436, -2.19722458]]])
        >>> y = torch.tensor([[1, 1, 0, 0]])  # p = .9 .6 .2 .1
        >>> round(binary_cross_entropy(z, y).item(), 6)
        0.236173
        >>> round(binary_cross_entropy(-z, y).item(), 6)  # the sign of the logits matters
        1.782725

    Cite:
        Good (1952), Rational decisions: the logarithmic score.
    """
    batch = prepare(
        "binary_cross_entropy",
        logits,
        target,
        multilabel=multilabel,
        ignore_index=ignore_index,
        pixel_weight=pixel_weight,
        reduction=reduction,
    )
    if batch.exclusive:
        raise ValueError(
            f"binary_cross_entropy: logits have {logits.shape[1]} channels, "
            "wanted one; for independent channels pass multilabel=True, "
            "for exclusive classes use cross_entropy"
        )
    return reduce_pixels(sigmoid_cross_entropy(batch.logits, batch.target), batch)


class BinaryCrossEntropy(SegLoss, fn=binary_cross_entropy): ...


@register(
    family="distribution",
    unit="pixel",
    summary="Scores the probability of every pixel's true class by the logarithm: the proper "
    "default for exclusive classes.",
    formula=r"\ell_i = -\log p_{i,y_i},\quad p_i=\operatorname{softmax}(z_i)",
    cite="good1952rational",
    special_cases=(
        SpecialCase(
            "binary_cross_entropy, with one channel",
            kind="binary",
            left=lambda z, y: cross_entropy(z, y),
            right=lambda z, y: binary_cross_entropy(z, y),
            other="binary_cross_entropy",
        ),
        SpecialCase(
            "binary_cross_entropy of z1 - z0, with two classes",
            kind="binary",
            left=lambda z, y: cross_entropy(torch.cat([-z, 2 * z], 1), y),
            right=lambda z, y: binary_cross_entropy(3 * z, y),
            other="binary_cross_entropy",
        ),
        SpecialCase(
            "unchanged when a constant is added to all logits of a pixel",
            kind="multiclass",
            left=lambda z, y: cross_entropy(z, y),
            right=lambda z, y: cross_entropy(z + z.detach().sum(1, keepdim=True), y),
        ),
    ),
    deviations=("The paper's score is a reward, fixed up to a factor and a constant.",),
    aliases={"torch": "CrossEntropyLoss"},
)
def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Score the probability of each pixel's true class by minus the logarithm.

    .. math:: \ell_i = -\sum_c y_{ic}\log p_{ic} = \log\sum_c e^{z_{ic}} - z_{i,y_i},
        \qquad p_i=\operatorname{softmax}(z_i)

    One channel, or ``multilabel=True``, makes it :func:`binary_cross_entropy`: a yes-or-no
    question is a choice between two classes.

    Shape:
        logits (N, C, \*space); target (N, \*space) labels in [0, C), or values of the logits'
        shape whose channels add up to 1. Returns a scalar; with ``reduction="none"``
        (N, \*space), multilabel (N, C, \*space).

    Args:
        logits: raw output of the network, before any softmax.
        target: integer labels, or floating values in [0, 1].
        multilabel: take the channels as independent questions, each with its own sigmoid.
        ignore_index: label of the pixels to leave out.
        pixel_weight: (N, \*space), >= 0; the mean becomes
            :math:`\sum w_i\ell_i/\sum w_i`.
        reduction: "mean", "sum" or "none".

    Returns:
        The loss, >= 0, in nats; float32 for half-precision logits.

    Edge cases:
        Equal logits give log C. A class that does not occur is nothing special. A soft target's
        minimum, at p = y, is its entropy, not 0. All pixels ignored: 0, without gradient.

    Special cases:
        ``binary_cross_entropy`` with one channel, and of z1 - z0 with two; unchanged when a
        constant is added to all logits of a pixel.

    Differs from:
        ``torch.nn.functional.cross_entropy`` is NaN when all pixels are ignored, and is 0 for
        any prediction with one channel.

    Raises:
        ValueError: what :func:`~.contract.prepare` finds.
        TypeError: wrong dtypes.

    Example:
        >>> import torch
        >>> p = torch.tensor([[.7, .2, .1], [.1, .8, .1], [.3, .3, .4], [.5, .25, .25]])
        >>> z, y = p.log().T[None], torch.tensor([[0, 1, 2, 1]])
        >>> round(cross_entropy(z, y).item(), 6)
        0.720601
        >>> round(cross_entropy(z.flip(1), y).item(), 6)  # the order of the classes matters
        1.278999

    Cite:
        Good (1952), Rational decisions: the logarithmic score; the softmax: Bridle (1990).
    """
    batch = prepare(
        "cross_entropy",
        logits,
        target,
        multilabel=multilabel,
        ignore_index=ignore_index,
        pixel_weight=pixel_weight,
        reduction=reduction,
    )
    if not batch.exclusive:
        loss = sigmoid_cross_entropy(batch.logits, batch.target)
    elif not batch.labelled:
        loss = -(batch.target * batch.logits.log_softmax(1)).sum(1)
    elif batch.weight is None and reduction != "none" and logits.numel():
        # A pass less, where torch does the same.
        return F.cross_entropy(batch.logits, batch.target, reduction=reduction)
    else:
        loss = F.cross_entropy(batch.logits, batch.target, reduction="none")
    return reduce_pixels(loss, batch)


class CrossEntropy(SegLoss, fn=cross_entropy): ...


class _SigmoidCrossEntropy(torch.autograd.Function):
    """log(1 + exp z) - y z: torch's own costs three more tensors in the gradient."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(z, y)
        # Above the threshold softplus returns z: at its default of 20 float64 would lose digits.
        return F.softplus(z, threshold=80).addcmul_(z, y, value=-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        z, y = ctx.saved_tensors
        to_target = -z * grad if ctx.needs_input_grad[1] else None
        if torch.is_grad_enabled():  # somebody wants the second derivative
            return (z.sigmoid() - y) * grad, to_target
        return z.sigmoid().sub_(y).mul_(grad), to_target


def sigmoid_cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of logits, per element."""
    if runs_eagerly():
        return _SigmoidCrossEntropy.apply(z, y)
    return F.softplus(z, threshold=80) - z * y
