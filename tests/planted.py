"""A correct loss, and one loss per check that breaks just that promise, as real ones do.

Each bug is written the way it was found in the wild wherever it was; ``origin`` says where. A bug
that cannot help breaking another promise too names it as company, with the reason.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seglosses_nb.contract import Regions, check_range, prepare
from seglosses_nb.registry import LossInfo, SegLoss, SpecialCase

# ------------------------------------------------------------------------------- the correct loss


def tversky_by_hand(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    aggregate: str = "image",
    include_background: bool = True,
    class_weight: Any = None,
    absent: str = "smooth",
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: Tensor | None = None,
    reduction: str = "mean",
    process_group: Any = None,
) -> Tensor:
    r"""One minus the Tversky index, which prices the two kinds of error apart.

    .. math:: \frac{\alpha FP + \beta FN}{TP + \alpha FP + \beta FN + s}

    Shape:
        logits (N, C, \*space); target (N, \*space) labels or values of the logits' shape.

    Args:
        logits: raw output of the network.
        target: integer labels, or floating values.
        alpha: the price of a false positive.
        beta: the price of a false negative.
        smooth: the smoothing term.
        aggregate: "image" or "batch".
        include_background: whether class 0 counts.
        class_weight: one weight per class.
        absent: "smooth", "skip" or "worst".
        multilabel: take the channels as independent masks.
        ignore_index: label of the pixels to leave out.
        pixel_weight: one weight per pixel.
        reduction: "mean", "sum" or "none".
        process_group: ranks to sum over.

    Returns:
        The loss, in [0, 1].

    Edge cases:
        Both empty: 0.

    Special cases:
        The Dice loss with twice the smoothing term, if alpha = beta = 0.5.

    Raises:
        ValueError: a parameter out of range, or what prepare finds.

    Example:
        >>> z = torch.tensor([[[20.0, 20.0, 20.0, -20.0]]])  # 1 TP, 2 FP
        >>> y = torch.tensor([[1, 0, 0, 0]])
        >>> round(tversky_by_hand(z, y, smooth=0.0).item(), 4)
        0.375

    Cite:
        Salehi, Erdogmus & Gholipour (2017).
    """
    name = "tversky_by_hand"
    for parameter, value in (("alpha", alpha), ("beta", beta), ("smooth", smooth)):
        check_range(name, parameter, value, 0, 1e6)
    batch = prepare(
        name,
        logits,
        target,
        multilabel=multilabel,
        ignore_index=ignore_index,
        pixel_weight=pixel_weight,
        reduction=reduction,
    )
    regions = Regions(
        batch,
        aggregate=aggregate,
        include_background=include_background,
        class_weight=class_weight,
        absent=absent,
        process_group=process_group,
    )
    p, y = regions.probabilities(), regions.truth()
    tp, fp, fn, volume = regions.sums(torch.minimum(p, y), F.relu(p - y), F.relu(y - p), y)
    wrong = alpha * fp + beta * fn
    loss = wrong / (tp + wrong + smooth).clamp_min(1e-20)
    if absent == "worst":
        loss = torch.where(volume > 0, loss, (fp > 0).to(loss.dtype))
    return regions.reduce(loss, volume)


class TverskyByHand(SegLoss, fn=tversky_by_hand): ...


def _dice_with_twice_the_smoothing(logits: Tensor, target: Tensor) -> Tensor:
    p, y = logits.sigmoid().flatten(1), target.flatten(1)
    return (1 - 2 * ((p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 2)).mean()


CORRECT = LossInfo(
    name="tversky_by_hand",
    function=tversky_by_hand,
    module=TverskyByHand,
    family="region",
    unit="region",
    summary="",
    formula="",
    cite="",
    value_range=(0.0, 1.0),
    sides={"alpha": "false positives", "beta": "false negatives"},
    special_cases=(
        SpecialCase(
            "the Dice loss with twice the smoothing term",
            kind="binary",
            left=lambda z, y: tversky_by_hand(z, y, alpha=0.5, beta=0.5),
            right=_dice_with_twice_the_smoothing,
        ),
    ),
)


def tversky_oracle(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    aggregate: str = "image",
    include_background: bool = True,
    class_weight: Any = None,
    absent: str = "smooth",
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: np.ndarray | None = None,
    reduction: str = "mean",
) -> np.ndarray:
    """Loop over images and classes, in NumPy."""
    count, channels = logits.shape[:2]
    z = logits.reshape(count, channels, -1)
    soft = np.issubdtype(target.dtype, np.floating)
    y = target.reshape(count, channels if soft or multilabel else 1, -1)
    weight = np.ones((count, channels, z.shape[2]))
    if pixel_weight is not None:
        weight *= pixel_weight.reshape(count, 1, -1)
    if ignore_index is not None:
        weight *= y != ignore_index
    if not soft and channels > 1 and not multilabel:
        y = y == np.arange(channels).reshape(1, -1, 1)
    if channels > 1 and not multilabel:
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
    else:
        p = 1 / (1 + np.exp(-z))
    groups = [range(count)] if aggregate == "batch" else [[n] for n in range(count)]
    first = 0 if include_background else 1
    values, weights = (np.zeros((len(groups), channels - first)) for _ in range(2))
    for row, images in enumerate(groups):
        for c in range(first, channels):
            w, a, b = (np.concatenate([x[n, c] for n in images]) for x in (weight, p, y))
            b = np.where(w > 0, b, 0)
            tp, fp = (w * np.minimum(a, b)).sum(), (w * np.maximum(a - b, 0)).sum()
            fn = (w * np.maximum(b - a, 0)).sum()
            wrong, there = alpha * fp + beta * fn, (w * b).sum() > 0
            whole = tp + wrong + smooth
            values[row, c - first] = wrong / whole if whole > 0 else 0
            if absent == "worst" and not there:
                values[row, c - first] = fp > 0
            counts = w.sum() > 0 and (there or absent != "skip")
            weights[row, c - first] = counts * (1 if class_weight is None else class_weight[c])
    if reduction == "none":
        return values * weights
    total = (values * weights).sum()
    return total if reduction == "sum" else total / max(weights.sum(), 1e-300)


# ------------------------------------------------------------------------------------ the planting


@dataclass(frozen=True)
class Bug:
    """A loss that breaks one promise.

    Attributes:
        name: what is wrong.
        check: the check that must catch it.
        loss: the loss.
        facts: what is stated about it.
        origin: where it was found, or what it is like.
        company: other checks that cannot help failing, with the reason.
        oracle: a trusted implementation.
    """

    name: str
    check: str
    loss: Callable[..., Tensor]
    facts: LossInfo | Mapping[str, Any]
    origin: str
    company: Mapping[str, str] = field(default_factory=dict)
    oracle: Callable[..., Any] | None = None


BUGS: list[Bug] = []


def bug(check: str, origin: str, **rest: Any) -> Callable[[Any], Any]:
    """Plant a loss of which some facts are stated."""

    def plant(loss: Any) -> Any:
        more = {name: rest.pop(name) for name in ("company", "oracle") if name in rest}
        BUGS.append(Bug(loss.__name__, check, loss, dict(rest), origin, **more))
        return loss

    return plant


def bug_in_tversky(check: str, origin: str, **changes: Any) -> Callable[[Any], Any]:
    """Plant a variant of the correct loss, held to the whole contract."""

    def plant(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        signature = changes.pop("signature", None)
        name, doc = function.__name__, function.__doc__ or tversky_by_hand.__doc__
        functools.update_wrapper(function, tversky_by_hand, assigned=("__module__",))
        function.__doc__ = doc
        function.__signature__ = signature or inspect.signature(tversky_by_hand)
        facts = replace(CORRECT, function=function, **changes)
        BUGS.append(Bug(name, check, function, facts, origin, oracle=tversky_oracle))
        return function

    return plant


def read(logits: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Return probabilities and truth, (N, C, *space), of inputs that are in order."""
    batch = prepare("planted", logits, target, **options)
    return batch.probabilities(), batch.truth()


def counts(p: Tensor, y: Tensor, dim: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the soft counts TP, FP and FN of each image and class."""
    dim = tuple(range(2, p.ndim)) if dim is None else dim
    return (p * y).sum(dim), (p * (1 - y)).sum(dim), ((1 - p) * y).sum(dim)


def dice(p: Tensor, y: Tensor, smooth: float = 1.0) -> Tensor:
    """Return the Dice loss of each image and class."""
    tp, fp, fn = counts(p, y)
    return (fp + fn) / (2 * tp + fp + fn + smooth)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of each pixel, (N, *space)."""
    _, y = read(logits, target)
    z = single(logits)
    if z.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(z, y, reduction="none").squeeze(1)
    return -(y * z.log_softmax(1)).sum(1)


def single(logits: Tensor) -> Tensor:
    """Raise half precision to single."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


BINARY, MULTICLASS = {"targets": ("binary",)}, {"targets": ("multiclass",)}


# ------------------------------------------------------------------------------------ about form


@bug(
    "signature",
    "a loss made ready for nn.DataParallel with unsqueeze(0)",
    func=False,  # torch.func.grad wants a number, not a vector of one
)
def returns_a_vector_of_one(logits, target):
    return dice(*read(logits, target)).mean().unsqueeze(0)


class DriftedTversky(nn.Module):
    """A module by hand, whose default is another than the function's."""

    def __init__(self, beta: float = 0.5) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        return tversky_by_hand(logits, target, beta=self.beta, **options)


@bug_in_tversky(
    "module",
    "SMP: FocalLoss has alpha=None where focal_loss_with_logits has alpha=0.25",
    module=DriftedTversky,
)
def module_with_another_default(logits, target, **options):
    return tversky_by_hand(logits, target, **options)


@bug_in_tversky("docstring", "an example that nobody has run since the default was changed")
def example_out_of_date(logits, target, **options):
    return tversky_by_hand(logits, target, **options)


example_out_of_date.__doc__ = tversky_by_hand.__doc__.replace("0.375", "0.5833")


@bug("targets", "arithmetic on uint8 labels: 2 * 0 - 1 is 255", **BINARY)
def byte_arithmetic(logits, target):
    y = prepare("planted", logits, target).truth() * 0 + (2 * target - 1).unsqueeze(1)
    return F.softplus(-y.to(logits.dtype) * logits).mean()


@bug(
    "multilabel",
    "MONAI: DiceCELoss(sigmoid=True) has a softmax in its cross-entropy",
    targets=("binary", "multilabel"),
    company={
        "minimum": "two classes at one pixel cannot both have probability 1",
        "wrong_costs": "so the right prediction is not the best",
        "edge_targets": "nor can they on a full mask",
        "monotone": "a channel that rises lowers the others, which may be right too",
    },
)
def softmax_for_overlapping_classes(logits, target, *, multilabel=False):
    _, y = read(logits, target, multilabel=multilabel)
    p = logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()
    return dice(p, y).mean()


@bug(
    "bad_inputs", "most losses in the wild: a 0/255 mask gives a number, and a wrong one", **BINARY
)
def unchecked_labels(logits, target):
    return F.binary_cross_entropy_with_logits(
        single(logits).squeeze(1), target.to(single(logits).dtype)
    )


@bug("parameters_matter", "clDice: takes iter_ and always makes 10 steps", **BINARY)
def parameter_without_effect(logits, target, *, smooth=1.0):
    return dice(*read(logits, target)).mean()


@bug_in_tversky("parameters_out_of_range", "a price below 0, or NaN, is taken without a word")
def unchecked_prices(logits, target, *, alpha=0.3, **options):
    fine = isinstance(alpha, (int, float)) and 0 <= alpha <= 1e6
    return tversky_by_hand(logits, target, alpha=alpha if fine else 0.0, **options)


# ----------------------------------------------------------------------------------- about values


@bug(
    "oracle",
    "optax, MONAI, SMP: the smoothing term inside or outside the factor 2",
    oracle=lambda z, y: _dice_oracle(z, y),
    **BINARY,
)
def smoothing_of_another_size(logits, target):
    return dice(*read(logits, target), smooth=2.0).mean()


def _dice_oracle(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    losses = []
    for z, y in zip(logits, target, strict=True):
        p, y = 1 / (1 + np.exp(-z.ravel())), y.ravel()
        losses.append(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    return np.mean(losses)


@bug("range", "SegLossOdyssey, DistBinaryDiceLoss: a ratio of two sizes", value_range=(0.0, 1.0))
def relative_error(logits, target):
    p, y = read(logits, target)
    _, fp, fn = counts(p, y)
    return ((fp + fn) / (y.flatten(2).sum(2) + 1)).mean()


@bug(
    "minimum",
    "a label smoothing that nobody asked for",
    company={"edge_targets": "on a full or an empty mask the best costs something too"},
)
def hidden_label_smoothing(logits, target):
    p, y = read(logits, target)
    y = 0.9 * y + 0.1 / max(p.shape[1], 2)
    return dice(p, y).mean()


@bug(
    "wrong_costs",
    "recall alone: what is found too much costs nothing",
    empty_target="free",
    **BINARY,
)
def recall_loss(logits, target):
    p, y = read(logits, target)
    _, _, fn = counts(p, y)
    return (fn / y.flatten(2).sum(2).clamp_min(1)).mean()


@bug(
    "edge_targets",
    "SMP: an image without foreground is multiplied by 0, its gradient too",
    **BINARY,
)
def empty_target_for_nothing(logits, target):
    p, y = read(logits, target)
    return (dice(p, y) * (y.flatten(2).sum(2) > 0)).mean()


@bug("monotone", "an entropy term that outweighs the loss it is added to", **BINARY)
def too_much_entropy(logits, target):
    p, _ = read(logits, target)
    entropy = F.softplus(single(logits)) - p * single(logits)
    return cross_entropy(logits, target).mean() + 5 * entropy.mean()


SIDES = {"alpha": "false positives", "beta": "false negatives"}


@bug("sides", "Keras until July 2026, Flux: the two prices the wrong way round", sides=SIDES)
def sides_swapped(logits, target, *, alpha=0.3, beta=0.7):
    tp, fp, fn = counts(*read(logits, target))
    wrong = alpha * fn + beta * fp
    return (wrong / (tp + wrong + 1)).mean()


@bug(
    "sides",
    "kornia up to 0.8.3: summed over the softmax, FP = FN, so only alpha + beta acts",
    sides=SIDES,
)
def sides_collapsed(logits, target, *, alpha=0.3, beta=0.7):
    p, y = read(logits, target)
    if p.shape[1] == 1:  # as two classes
        p, y = torch.cat([1 - p, p], 1), torch.cat([1 - y, y], 1)
    tp, fp, fn = counts(p, y, dim=tuple(range(1, p.ndim)))
    wrong = alpha * fp + beta * fn
    return (wrong / (tp + wrong + 1)).mean()


@bug(
    "soft_targets",
    "MONAI without soft_label=True: with products as TP, a target of 0.5 asks for 1",
    targets=("binary", "multiclass", "soft"),
)
def products_for_soft_targets(logits, target):
    p, y = read(logits, target)
    tp, _, _ = counts(p, y)
    size = (p + y).flatten(2).sum(2)
    return (1 - (2 * tp + 1) / (size + 1)).mean()


@bug(
    "special_cases",
    "a tutorial: 'with gamma = 1 the focal loss is the cross-entropy'; it is so with gamma = 0",
    special_cases=(
        SpecialCase(
            "the cross-entropy, with gamma = 1",
            kind="binary",
            left=lambda z, y: focal_loss(z, y, gamma=1.0),
            right=lambda z, y: cross_entropy(z, y).mean(),
        ),
    ),
    **BINARY,
)
def focal_loss(logits, target, *, gamma=2.0):
    p, y = read(logits, target)
    missing = (y - p).abs().squeeze(1)
    return (missing**gamma * cross_entropy(logits, target)).mean()


# -------------------------------------------------------------------------------- about gradients


@bug("gradcheck", "SegLossOdyssey, HausdorffERLoss: a term without gradient, made in NumPy")
def detached_term(logits, target):
    return (cross_entropy(logits, target).mean() + dice(*read(logits, target)).mean().detach()) / 2


class _Once(torch.autograd.Function):
    """softplus(z) - y z, whose backward cannot be differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return F.softplus(z) - y * z, z.sigmoid() - y

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]
    ) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.saved_tensors[0], None


class _Doubled(torch.autograd.Function):
    """softplus(z) - y z, with another formula where a second derivative is wanted."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, y: Tensor) -> Tensor:
        return F.softplus(z) - y * z

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        z, y = ctx.saved_tensors
        sign = 1 if torch.is_grad_enabled() else -1
        return (z.sigmoid() + sign * y) * grad, None


@bug(
    "double_backward",
    "two formulas for one gradient: a sign is wrong in the one that is seldom used",
    company={"func": "torch.func always uses that one"},
    **BINARY,
)
def second_formula_wrong(logits, target):
    _, y = read(logits, target)
    return _Doubled.apply(single(logits), y).mean()


@bug("double_backward", "a custom backward that keeps its gradient as a constant", **BINARY)
def gradient_kept_as_a_constant(logits, target):
    _, y = read(logits, target)
    return _Once.apply(single(logits), y)[0].mean()


@bug("extreme_logits", "SMP, focal Tversky: the slope of x ** 0.75 is infinite at a perfect 0")
def power_of_zero(logits, target):
    return (dice(*read(logits, target)) ** 0.75).mean()


@bug(
    "precision",
    "cross-entropy of probabilities: log(1 - p) has no digits left near p = 1",
    **BINARY,
)
def logarithm_of_a_difference(logits, target):
    p, y = read(logits, target)
    return -(y * (p + 1e-12).log() + (1 - y) * (1 - p + 1e-12).log()).mean()


@bug("half_precision", "SMP, nnU-Net: in float16 the sum over 512 x 512 ones is infinite")
def sums_in_half_precision(logits, target):
    p, y = read(logits, target)
    return dice(p.to(logits.dtype), y.to(logits.dtype)).mean()


# ----------------------------------------------------------------------- about pixels and classes


@bug("reductions", "one value per image where one per image and class is stated", unit="region")
def mean_over_classes_too_early(logits, target, *, reduction="mean"):
    each = dice(*read(logits, target)).mean(1)
    return {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]


@bug("aggregation", "SMP: sums over the batch where images are stated", unit="region")
def batch_sum_for_image_sum(logits, target):
    p, y = read(logits, target)
    tp, fp, fn = counts(p, y, dim=(0, *range(2, p.ndim)))
    return ((fp + fn) / (2 * tp + fp + fn + 1)).mean()


@bug("ignore_equals_crop", "SMP, kornia: the mean over all pixels, those ignored included")
def mean_over_ignored_pixels(logits, target, *, ignore_index=None):
    batch = prepare("planted", logits, target, ignore_index=ignore_index)
    loss = cross_entropy(
        batch.logits, batch.target.squeeze(1).long() if logits.shape[1] == 1 else batch.target
    )
    return (loss if batch.weight is None else loss * batch.weight.squeeze(1)).mean()


@bug("ignore_equals_crop", "PaddleSeg, mmsegmentation: ignored in the overlap, not in the size")
def ignored_in_half_the_ratio(logits, target, *, ignore_index=None):
    batch = prepare("planted", logits, target, ignore_index=ignore_index)
    z = single(logits).nan_to_num()
    p = z.softmax(1) if z.shape[1] > 1 else z.sigmoid()
    y, dims = batch.truth(), tuple(range(2, logits.ndim))
    weight = torch.ones_like(p[:, :1]) if batch.weight is None else batch.weight
    loss = ((p - y).abs() * weight).sum(dims) / (p.sum(dims) + (y * weight).sum(dims) + 1)
    valid = (weight.amax(dims) > 0).to(loss.dtype).expand_as(loss)
    return (loss * valid).sum() / valid.sum().clamp_min(1)


@bug("pixel_weight", "a weight map used as a mask: 3 counts as 1")
def weights_as_a_mask(logits, target, *, pixel_weight=None):
    batch = prepare("planted", logits, target, pixel_weight=pixel_weight)
    loss = cross_entropy(batch.logits, target)
    if pixel_weight is None:
        return loss.mean()
    mask = (pixel_weight > 0).to(loss.dtype)
    return (loss * mask).sum() / mask.sum().clamp_min(1)


@bug("class_weight", "MONAI: weighted, but divided by the number of classes", unit="region")
def divided_by_the_number_of_classes(logits, target, *, class_weight=None, reduction="mean"):
    batch = prepare("planted", logits, target, reduction=reduction)
    Regions(batch, class_weight=class_weight)  # raises if they do not fit
    each = dice(batch.probabilities(), batch.truth())
    if class_weight is not None:
        each = each * torch.as_tensor(class_weight, dtype=each.dtype, device=each.device)
    return {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]


@bug("background", "the last class dropped, in place of the first", unit="region", **MULTICLASS)
def last_class_dropped(logits, target, *, include_background=True, reduction="mean"):
    p, y = read(logits, target)
    each = dice(p, y) if include_background else dice(p[:, :-1], y[:, :-1])
    return {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]


@bug(
    "absent",
    "SMP: a class that is absent adds nothing, whatever is predicted",
    unit="region",
    **MULTICLASS,
)
def absent_class_for_nothing(logits, target, *, absent="smooth", reduction="mean"):
    p, y = read(logits, target)
    if absent not in ("smooth", "skip", "worst"):
        raise ValueError(f"planted: absent is {absent!r}")
    there = (y.flatten(2).sum(2) > 0).to(p.dtype)
    each = dice(p, y) * there
    amount = there.sum() if absent == "skip" else there.numel()
    return {"none": each, "sum": each.sum(), "mean": each.sum() / amount}[reduction]


# -------------------------------------------------------------------------- about space and order


@bug("dimensions", "the axes of a 2-D image written into the sum")
def axes_of_images_only(logits, target):
    tp, fp, fn = counts(*read(logits, target), dim=(2, 3))
    return ((fp + fn) / (2 * tp + fp + fn + 1)).mean()


@bug(
    "permutations",
    "kornia up to 0.8.3, lovasz_softmax_loss: sorts the labels where it should sort the masks",
    cost="n log n",
    **MULTICLASS,
)
def sorts_the_label_ids(logits, target):
    p, y = read(logits, target)
    errors, labels = (p - y).abs().flatten(2), target.flatten(1).to(p.dtype)
    errors, order = errors.sort(2, descending=True)
    masks = labels.unsqueeze(1).expand_as(order).gather(2, order)  # 0, 1, 2 for 0 and 1
    total = masks.sum(2, keepdim=True)
    union = total + (1 - masks).cumsum(2)
    jaccard = 1 - (total - masks.cumsum(2)) / union.where(union.abs() > 1e-6, 1)
    steps = jaccard.diff(dim=2, prepend=torch.zeros_like(jaccard[..., :1]))
    return (errors * steps).sum(2).mean()


@bug(
    "permutations",
    "label ids taken for amounts: to miss class 2 by class 0 costs four times",
    **MULTICLASS,
)
def labels_as_amounts(logits, target):
    p, _ = read(logits, target)
    ids = torch.arange(p.shape[1], dtype=p.dtype, device=p.device).view(-1, *[1] * (p.ndim - 2))
    return (p * (ids - target.unsqueeze(1)) ** 2).sum(1).mean()


@bug(
    "symmetries",
    "edges compared along one axis only; SegLossOdyssey's 3-D kernel leaves out the depth",
    spatial=True,
    monotone=False,
    **BINARY,
)
def edges_along_one_axis(logits, target):
    p, y = read(logits, target)
    edges = ((p - y).diff(dim=-1) ** 2).sum() / p.numel()
    return ((p - y) ** 2).mean() + edges


# --------------------------------------------------------------------- about manners and machinery


@bug("deterministic", "noise that breaks ties")
def noise_against_ties(logits, target):
    return dice(*read(logits + 1e-13 * random.random(), target)).mean()


@bug(
    "inputs_untouched",
    "a weight map normalised in place",
    company={"double_backward": "autograd finds that a tensor it had kept was written to"},
)
def weights_written_to(logits, target, *, pixel_weight=None):
    batch = prepare("planted", logits, target, pixel_weight=pixel_weight)
    loss = cross_entropy(batch.logits, target)
    if pixel_weight is None:
        return loss.mean()
    pixel_weight.mul_(1 / pixel_weight.sum().clamp_min(1e-30))
    return (loss * pixel_weight).sum() / pixel_weight.sum().clamp_min(1e-30)


@bug("layouts", "view(): not of a tensor that lies in memory in another order")
def view_of_anything(logits, target):
    _, y = read(logits, target)
    n, c = logits.shape[:2]
    z = logits.view(n, c, -1)
    p = z.softmax(1) if c > 1 else z.sigmoid()
    return dice(p.to(y.dtype), y.flatten(2)).mean()


@bug(
    "compile",
    "SMP: a Python branch on whether there is any foreground",
    company={
        "func": "vmap cannot branch on a value either",
        "device": "and a device must be waited for to know it",
    },
)
def branch_on_a_value(logits, target):
    p, y = read(logits, target)
    if y.sum() == 0:
        return dice(p, y).mean()
    return dice(p, y).mean()


@bug("func", "one-hot by scatter_ into zeros, which vmap cannot write to", **MULTICLASS)
def scatter_into_zeros(logits, target):
    p, _ = read(logits, target)
    y = torch.zeros(p.shape, dtype=p.dtype, device=p.device)
    y.scatter_(1, target.unsqueeze(1).long(), 1.0)
    return dice(p, y).mean()


@bug("device", "class numbers made on the CPU", **MULTICLASS)
def class_numbers_on_the_cpu(logits, target):
    p, _ = read(logits, target)
    ids = torch.arange(p.shape[1]).view(-1, *[1] * (p.ndim - 2))
    return dice(p, (target.unsqueeze(1) == ids).to(p.dtype)).mean()


@bug(
    "cost",
    "every pixel compared with every other, as in some weighted Hausdorff losses",
    company={"half_precision": "the pairs of 512 x 512 pixels do not fit into memory"},
    **BINARY,
)
def every_pixel_with_every_other(logits, target):
    p, y = read(logits, target)
    error = (p - y).abs().flatten(1)
    return torch.maximum(error.unsqueeze(2), error.unsqueeze(1)).mean()
