"""The contract that every loss keeps: the only place that validates, activates, masks and reduces.

A loss is three steps: :func:`prepare` turns what the caller gave into a checked :class:`Batch`,
the loss writes its formula, and :func:`reduce_pixels` or :meth:`Regions.reduce` ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "sum", "none"]
Aggregate = Literal["image", "batch"]
Absent = Literal["smooth", "skip", "worst"]

_value_checks = True


def set_value_checks(enabled: bool) -> bool:
    """Switch the checks of values (labels, soft targets, weights) on or off; return the old state.

    Shapes, types and parameters are always checked. Values are checked in one pass, in eager mode
    on the CPU; under ``torch.compile``, ``torch.export`` and ``vmap`` and on accelerators, where
    reading a value would break the graph or wait for the device, they are not.
    """
    global _value_checks
    before, _value_checks = _value_checks, bool(enabled)
    return before


# ------------------------------------------------------------------------------------ preparation


@dataclass(slots=True)  # frozen would cost a microsecond per field
class Batch:
    """A checked batch, in the precision in which the loss is computed.

    Attributes:
        logits: (N, C, \\*space), float32 or float64; 0 where a pixel is ignored.
        target: int64 labels (N, \\*space) if ``labelled``, else values (N, C, \\*space).
        weight: (N, 1, \\*space), or (N, C, \\*space) for multilabel masks with ignored entries;
            0 where ignored. ``None`` stands for 1 everywhere.
        multilabel: every channel is its own yes-or-no question.
        labelled: whether ``target`` holds class indices.
        hard: whether the target is known to hold zeros and ones only: labels do, floating values
            if that was asked and they could be read.
        reduction: the reduction that was asked for.
        name: the loss, for error messages.
    """

    logits: Tensor
    target: Tensor
    weight: Tensor | None
    multilabel: bool
    labelled: bool
    hard: bool
    reduction: str
    name: str

    @property
    def exclusive(self) -> bool:
        """Whether the channels exclude each other (softmax) or not (sigmoid)."""
        return self.logits.shape[1] > 1 and not self.multilabel

    def probabilities(self) -> Tensor:
        """Softmax over the classes, or the sigmoid of every channel: (N, C, \\*space)."""
        return self.logits.softmax(1) if self.exclusive else self.logits.sigmoid()

    def truth(self) -> Tensor:
        """Return the target as values in [0, 1] of the logits' shape; labels become one-hot."""
        if not self.labelled:
            return self.target
        classes = torch.arange(self.logits.shape[1], device=self.target.device)
        classes = classes.view(-1, *[1] * (self.logits.ndim - 2))
        if runs_eagerly():  # writing floats at once is 3 times as fast as casting from bool
            labels = self.target.unsqueeze(1).to(self.logits.dtype)
            return torch.eq(labels, classes, out=torch.empty_like(self.logits.detach()))
        return (self.target.unsqueeze(1) == classes).to(self.logits.dtype)


def prepare(
    name: str,
    logits: Tensor,
    target: Tensor,
    *,
    multilabel: bool = False,
    ignore_index: int | None = None,
    pixel_weight: Tensor | None = None,
    reduction: str = "mean",
    space_dims: Sequence[int] | None = None,
    tell_hard: bool = False,
) -> Batch:
    """Check the arguments that all losses share and bring them into one form.

    Half precision is raised to float32. An ignored pixel (its label is ``ignore_index``, or its
    ``pixel_weight`` is 0) gets logit 0, a valid target and weight 0, so that whatever stood there,
    NaN included, reaches neither the value nor the gradient. A loss that is quicker on masks than
    on soft values asks with ``tell_hard`` whether a floating target is a mask.

    Raises:
        TypeError: something is not a tensor, or of the wrong dtype.
        ValueError: shapes, devices, labels, soft values, weights or options do not fit.
    """
    _check_arguments(name, logits, target, multilabel, ignore_index, pixel_weight, reduction)
    if space_dims is not None and logits.ndim - 2 not in space_dims:
        wanted = " or ".join(f"{d}-D" for d in space_dims)
        raise ValueError(
            f"{name}: logits {_shape(logits)} have {logits.ndim - 2} space axes, wanted {wanted} "
            "images (N, C, *space); fold other axes into the batch"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    channels = logits.shape[1]

    hard = not target.is_floating_point()
    if target.dtype in (torch.uint16, torch.uint32, torch.uint64):
        target = target.long()  # torch hardly computes with these
    weight = ignored = None
    if pixel_weight is not None:
        weight = pixel_weight.unsqueeze(1).to(logits.dtype)
        ignored = weight == 0
    if hard and ignore_index is not None:
        void = _equals(target, ignore_index)
        target = target.masked_fill(void, 0)
        void = void if void.ndim == logits.ndim else void.unsqueeze(1)
        ignored = void if ignored is None else ignored | void
        weight = (~void).to(logits.dtype) if weight is None else weight.masked_fill(void, 0)
    if ignored is not None:
        logits = logits.masked_fill(ignored, 0)

    labelled = hard and channels > 1 and not multilabel
    if hard:
        top = channels - 1 if labelled else 1
        _check_labels(name, target, top, channels, multilabel)
        if labelled:
            target = target.long()
        else:
            target = target if target.ndim == logits.ndim else target.unsqueeze(1)
            target = target.to(logits.dtype)
    else:
        target = target.to(logits.dtype)
        if ignored is not None:
            target = target.masked_fill(ignored, 0)
        exclusive = channels > 1 and not multilabel
        # A target that learns wants the slope of the minimum, which a product does not have.
        tell_hard = tell_hard and not target.requires_grad
        hard = _check_soft(name, target, weight, exclusive, tell_hard)
    if pixel_weight is not None:
        _check_weight(name, "pixel_weight", pixel_weight)
    return Batch(logits, target, weight, multilabel, labelled, hard, reduction, name)


# -------------------------------------------------------------------------------------- reduction


def reduce_pixels(loss: Tensor, batch: Batch) -> Tensor:
    """Reduce a loss per pixel, (N, \\*space) or (N, C, \\*space), as the batch asks.

    ``"none"`` returns weighted values, 0 where ignored, so that the weighted mean
    :math:`\\sum w\\,\\ell / \\sum w` is ``none.sum() / w.sum()``. A mean over nothing is 0.
    """
    weight = batch.weight
    one_channel = not batch.multilabel and loss.ndim == batch.logits.ndim
    if one_channel and (weight is not None or batch.reduction == "none"):
        loss = loss.squeeze(1)
    if weight is None:
        amount: Tensor | int = max(loss.numel(), 1)
    else:
        weight = weight if loss.ndim == weight.ndim else weight.squeeze(1)
        loss = loss * weight
        amount = weight.sum() * (loss.numel() // max(weight.numel(), 1))
        amount = torch.where(amount > 0, amount, 1)
    return _reduce(loss, amount, batch.reduction)


def _reduce(loss: Tensor, amount: Tensor | int, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    # sum()/n, not mean(): its backward divides one number instead of filling a tensor
    return loss.sum() if reduction == "sum" else loss.sum() / amount


class Regions:
    """The regions of a batch, one per image and class: sums over them, and their reduction.

    Args:
        batch: what :func:`prepare` returned.
        aggregate: ``"image"`` sums over each image, ``"batch"`` over all images at once.
        include_background: ``False`` leaves class 0 out.
        class_weight: one weight per channel of the logits.
        absent: what a class that the target lacks contributes: ``"smooth"`` leaves it to the
            formula and its smoothing term, ``"skip"`` takes it out of the mean, ``"worst"``
            gives it the worst value as soon as anything is predicted.
        process_group: with ``"batch"``, sum over all ranks of this group; ``"world"`` for all there
            are, which is this process alone where no group has been started.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        aggregate: str = "image",
        include_background: bool = True,
        class_weight: Tensor | Sequence[float] | None = None,
        absent: str = "smooth",
        process_group: Any = None,
    ) -> None:
        name, channels = batch.name, batch.logits.shape[1]
        _check_choice(name, "aggregate", aggregate, ("image", "batch"))
        _check_choice(name, "absent", absent, ("smooth", "skip", "worst"))
        check_flag(name, "include_background", include_background)
        if not include_background and not batch.exclusive:
            kind = "multilabel" if batch.multilabel else "binary"
            raise ValueError(
                f"{name}: include_background is False for a {kind} target, which has no background "
                "channel; wanted multiclass logits (C >= 2); leave include_background at True"
            )
        if process_group is not None and aggregate != "batch":
            raise ValueError(
                f"{name}: process_group was given with aggregate={aggregate!r}, whose sums stay in "
                "one image; wanted aggregate='batch', or no process_group"
            )
        if isinstance(process_group, str) and process_group == "world":
            # Looked up at each call: a module can be built before the group and copied after it.
            running = torch.distributed.is_available() and torch.distributed.is_initialized()
            process_group = torch.distributed.group.WORLD if running else None
        if process_group is not None and not isinstance(
            process_group, torch.distributed.ProcessGroup
        ):
            raise TypeError(
                f"{name}: process_group is {process_group!r}, wanted a torch.distributed group, "
                "or 'world' for all ranks"
            )
        self.batch = batch
        self._space = tuple(range(2, batch.logits.ndim))
        self._skipped = 0 if include_background else 1
        self._batchwise = aggregate == "batch"
        self._absent = absent
        self._group = process_group
        self._class_weight = None
        if class_weight is not None:
            try:
                weight = torch.as_tensor(
                    class_weight, dtype=batch.logits.dtype, device=batch.logits.device
                )
            except (TypeError, ValueError, RuntimeError) as error:
                raise TypeError(
                    f"{name}: class_weight is {class_weight!r}, wanted {channels} numbers, one per "
                    "channel; seglosses_nb.class_weights(target, num_classes) computes them"
                ) from error
            if weight.shape != (channels,):
                raise ValueError(
                    f"{name}: class_weight has shape {_shape(weight)} but logits with {channels} "
                    f"channels need ({channels},): one weight per channel, the background's "
                    "included even where include_background is False"
                )
            _check_weight(name, "class_weight", weight)
            self._class_weight = weight[self._skipped :]

    def probabilities(self) -> Tensor:
        """Return the probabilities of the classes that count."""
        return self._counted(self.batch.probabilities())

    def truth(self) -> Tensor:
        """Return the target's values for the classes that count."""
        return self._counted(self.batch.truth())

    def _counted(self, values: Tensor) -> Tensor:
        # A slice of everything is not free: its backward copies.
        return values[:, self._skipped :] if self._skipped and values.shape[1] > 1 else values

    def sums(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Weighted sums of (N, C, \\*space) maps: (N, C), or (1, C) over a whole batch."""
        return self._collect(*(value.sum(self._space) for value in self._weighted(*values)))

    def overlap_sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return TP = sum of min(p, y), and the sums of p and of y: FP and FN are what is left.

        For a mask the minimum is the product. For soft targets it is what makes p = y the best
        prediction (Wang et al. 2023); with the product it is not.
        """
        batch, eager = self.batch, runs_eagerly()
        if batch.hard and eager and not batch.exclusive and batch.weight is None:
            overlap, predicted = _MaskSums.apply(batch.logits, batch.target, self._space)
            return self._collect(overlap, predicted, batch.target.sum(self._space))
        p, y = self.probabilities(), self.truth()
        if batch.hard:
            return self.sums(p * y, p, y)
        p, y = self._weighted(p, y)
        if eager:
            overlap, predicted = _OverlapSums.apply(p, y, self._space)
        else:
            overlap, predicted = torch.minimum(p, y).sum(self._space), p.sum(self._space)
        return self._collect(overlap, predicted, y.sum(self._space))

    def _weighted(self, *values: Tensor) -> tuple[Tensor, ...]:
        if self.batch.weight is None:
            return values
        weight = self._counted(self.batch.weight)
        return tuple(value * weight for value in values)

    def _collect(self, *totals: Tensor) -> tuple[Tensor, ...]:
        if self._batchwise:
            totals = tuple(total.sum(0, keepdim=True) for total in totals)
        if self._group is not None:
            totals = tuple(_AllReduce.apply(torch.stack(totals), self._group).unbind())
        return totals

    def smoothing(self, smooth: float, volume: Tensor) -> Tensor | float:
        """Return the smoothing term; ``absent="worst"`` removes it where the truth is empty.

        It is never quite 0, so that 0/0 becomes 1: of nothing, all was found. The floor leaves
        room for gradients scaled up in mixed precision.
        """
        floor = torch.finfo(volume.dtype).tiny ** 0.5
        smooth = max(smooth, floor)
        if self._absent != "worst":
            return smooth
        return torch.where(volume > 0, volume.new_full((), smooth), volume.new_full((), floor))

    def reduce(self, loss: Tensor, volume: Tensor) -> Tensor:
        """Reduce a loss per region (N, C) or (1, C), given the true volume of each region.

        The mean is :math:`\\sum w_c L_c / \\sum w_c` over the classes that count and the images
        in which at least one pixel is not ignored.
        """
        weight = self._class_weight
        if self._absent == "skip":
            present = (volume > 0).to(loss.dtype)
            weight = present if weight is None else weight * present
        # A region of which every pixel is ignored is as good as not there. A rank without weights
        # joins the sum over the ranks all the same: others may have some.
        if self.batch.weight is not None or self._group is not None:
            pixels = self.batch.weight
            if pixels is None:
                pixels = torch.ones_like(self.batch.logits[:, :1])
            amounts = self._counted(pixels).sum(self._space).expand(-1, volume.shape[1])
            (amount,) = self._collect(amounts)
            valid = (amount > 0).to(loss.dtype)
            weight = valid if weight is None else weight * valid
        if weight is None:
            return _reduce(loss, max(loss.numel(), 1), self.batch.reduction)
        weight = weight.expand_as(loss)
        amount = weight.sum()
        return _reduce(loss * weight, torch.where(amount > 0, amount, 1), self.batch.reduction)


def shortfall(part: Tensor, whole: Tensor) -> Tensor:
    """Return 1 - part/whole for 0 <= part <= whole.

    The gradient of this form, unlike that of (whole - part)/whole, does not cancel where nearly
    all is missing, which is where training starts.
    """
    loss = 1 - part / whole
    # Rounding may leave -1e-7. The last doubtful pixels still want their gradient, so that the
    # value is mended where autograd does not see it.
    if runs_eagerly():
        loss.detach().clamp_(min=0)
        return loss
    return loss - loss.detach().clamp_max(0)


class _OverlapSums(torch.autograd.Function):
    """Sums of min(p, y) and of p over space; autograd would pass twice as many tensors."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, y: Tensor, space: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(p, y)
        return torch.minimum(p, y).sum(space), p.sum(space)

    @staticmethod
    def backward(
        ctx: Any, to_overlap: Tensor, to_predicted: Tensor
    ) -> tuple[Tensor, Tensor | None, None]:
        p, y = ctx.saved_tensors
        shape = (*to_overlap.shape, *[1] * (p.ndim - 2))
        to_overlap, to_predicted = to_overlap.view(shape), to_predicted.view(shape)
        # The slope of min(p, y) in p: 1 below y, 0 above, a half on a tie.
        to_y = (1 + (p - y).sign()) / 2 * to_overlap if ctx.needs_input_grad[1] else None
        if torch.is_grad_enabled():  # somebody wants the second derivative
            return (1 + (y - p).sign()) / 2 * to_overlap + to_predicted, to_y, None
        slope = torch.sub(y, p).sign_().add_(1).mul_(to_overlap / 2)
        return slope.add_(to_predicted), to_y, None


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


class _MaskSums(torch.autograd.Function):
    """Sums of p y and of p = sigmoid(z) over space: the case that everybody trains with, fast."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, space: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        p = z.sigmoid()
        ctx.save_for_backward(z, p, y)
        return (p * y).sum(space), p.sum(space)

    @staticmethod
    def backward(ctx: Any, to_overlap: Tensor, to_predicted: Tensor) -> tuple[Tensor, None, None]:
        z, p, y = ctx.saved_tensors
        shape = (*to_overlap.shape, *[1] * (z.ndim - 2))
        to_overlap, to_predicted = to_overlap.view(shape), to_predicted.view(shape)
        if torch.is_grad_enabled():  # somebody wants the second derivative
            p = z.sigmoid()
            to_z = (y * to_overlap + to_predicted) * p * (1 - p)
        else:
            to_z = torch.mul(y, to_overlap).add_(to_predicted)
            _sigmoid_backward(to_z, p, grad_input=to_z)
        return to_z, None, None


class _AllReduce(torch.autograd.Function):
    """Sum over the ranks, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = value.clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # Every rank holds the same loss of the same sums. Summing the ranks' gradients gives
        # world_size times the true one, which the average over ranks in DDP takes back.
        return _AllReduce.apply(grad, ctx.group), None


# ----------------------------------------------------------------------------------------- checks


def check_range(
    name: str,
    argument: str,
    value: float,
    low: float = float("-inf"),
    high: float = float("inf"),
    *,
    open_low: bool = False,
) -> None:
    """Raise unless ``low <= value <= high`` (``low < value`` if ``open_low``)."""
    if type(value) not in (int, float) and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name}: {argument} is {value!r}, wanted a number")
    if not (low <= value <= high) or (open_low and value == low) or abs(value) == float("inf"):
        left = f"{low:g} <{'' if open_low else '='} " if low > float("-inf") else ""
        right = f" <= {high:g}" if high < float("inf") else ""
        raise ValueError(
            f"{name}: {argument} is {value!r}, wanted a finite {left}{argument}{right}"
        )


def check_flag(name: str, argument: str, value: object) -> None:
    """Raise unless the value is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: {argument} is {value!r}, wanted True or False")


def _check_choice(name: str, argument: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        wanted = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: {argument} is {value!r}, wanted one of {wanted}")


def _check_arguments(
    name: str,
    logits: Tensor,
    target: Tensor,
    multilabel: bool,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    reduction: str,
) -> None:
    """Check everything that can be told without looking at a value."""
    for argument, tensor in (
        ("logits", logits),
        ("target", target),
        ("pixel_weight", pixel_weight),
    ):
        if not isinstance(tensor, Tensor) and not (tensor is None and argument == "pixel_weight"):
            raise TypeError(
                f"{name}: {argument} is a {type(tensor).__name__}, wanted a torch.Tensor; "
                "torch.as_tensor makes one"
            )
        if tensor is not None and tensor.device != logits.device:
            raise ValueError(
                f"{name}: {argument} is on {tensor.device} but logits are on {logits.device}; "
                f"move it with .to({str(logits.device)!r})"
            )
    _check_choice(name, "reduction", reduction, ("mean", "sum", "none"))
    if logits.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        raise TypeError(
            f"{name}: logits are {logits.dtype}, wanted float16, bfloat16, float32 or float64: the "
            "raw output of a network, before any sigmoid, softmax or argmax"
        )
    if logits.ndim < 3 or logits.shape[1] < 1:
        raise ValueError(
            f"{name}: logits have shape {_shape(logits)}, wanted (N, C, *space) with C >= 1 and "
            "at least one space axis; add the missing axes with unsqueeze"
        )
    check_flag(name, "multilabel", multilabel)

    channels = logits.shape[1]
    labels = (logits.shape[0], *logits.shape[2:])
    if target.is_complex():
        raise TypeError(f"{name}: target is {target.dtype}, wanted integer, bool or floating")
    if target.is_floating_point():
        if target.shape != logits.shape:
            fix = "labels must be integer: target.long()"
            if channels == 1 and target.shape == labels:
                fix = "add the channel axis with target.unsqueeze(1), or use labels: target.long()"
            elif tuple(target.shape) == (labels[0], 1, *labels[1:]):
                fix = "labels must be integer, without channel axis: target.squeeze(1).long()"
            raise ValueError(
                f"{name}: target is {target.dtype} of shape {_shape(target)} but logits "
                f"{_shape(logits)} need soft values of shape {_shape(logits)} or integer labels of "
                f"shape {labels}; {fix}"
            )
        if ignore_index is not None:
            raise ValueError(
                f"{name}: ignore_index={ignore_index!r} was given with a {target.dtype} target, "
                "which has no labels to ignore; wanted integer labels, or pixel_weight=0 there"
            )
    else:
        if multilabel:
            fits, wanted = target.shape == logits.shape, f"{_shape(logits)} masks or soft values"
        else:
            fits = target.shape == labels or (channels == 1 and target.shape == logits.shape)
            wanted = f"{labels} labels or {_shape(logits)} soft values"
        if not fits:
            if target.shape == logits.shape:
                fix = "one-hot masks go in as floats (target.float()) or with multilabel=True"
                if logits.ndim == 3:
                    fix = f"if logits lack the channel axis: logits.unsqueeze(1); {fix}"
            elif tuple(target.shape) == (labels[0], 1, *labels[1:]):
                fix = "drop the channel axis with target.squeeze(1)"
            elif multilabel and target.shape == labels:
                fix = "multilabel masks have one channel per class; leave multilabel at False"
            elif target.shape[:1] != logits.shape[:1]:
                fix = "the batch sizes differ"
                if target.shape == logits.shape[1:]:
                    fix += "; if the batch axis is missing, give both one with unsqueeze(0)"
            elif target.shape == logits.shape[:-1]:
                fix = "if the channels come last, move them: logits.movedim(-1, 1)"
            else:
                fix = "resize the target with interpolate(mode='nearest'), or crop both alike"
            raise ValueError(
                f"{name}: target has shape {_shape(target)} but logits {_shape(logits)} need "
                f"{wanted}; {fix}"
            )
    if ignore_index is not None and (
        isinstance(ignore_index, bool) or not isinstance(ignore_index, int)
    ):
        raise TypeError(f"{name}: ignore_index is {ignore_index!r}, wanted an int or None")
    if pixel_weight is not None:
        if pixel_weight.dtype == torch.bool or pixel_weight.is_complex():
            raise TypeError(
                f"{name}: pixel_weight is {pixel_weight.dtype}, wanted a real number per pixel; "
                "turn a mask into 0 and 1 with .float()"
            )
        if pixel_weight.shape != labels:
            raise ValueError(
                f"{name}: pixel_weight has shape {_shape(pixel_weight)} but logits "
                f"{_shape(logits)} need {labels}: one weight per pixel, no channel axis"
            )


def _check_labels(name: str, target: Tensor, top: int, channels: int, multilabel: bool) -> None:
    if target.dtype == torch.bool or not _readable(target):
        return
    low, high = (int(value) for value in target.aminmax())
    if low >= 0 and high <= top:
        return
    bad = high if high > top else low
    if bad == 255:
        fix = "divide a 0/255 mask by 255 or compare it (target > 127); for void pixels that carry "
        fix += "255 pass ignore_index=255"
    elif bad < 0:
        fix = f"if {bad} marks pixels to leave out, pass ignore_index={bad}"
    elif channels == 1 or multilabel:
        fix = "for exclusive classes give logits one channel per class (and multilabel=False)"
    else:
        fix = f"give logits {bad + 1} channels, or map the labels to 0..{top}"
    raise ValueError(
        f"{name}: target holds the label {bad} but logits with {channels} "
        f"channel{'s' * (channels > 1)} need labels in [0, {top}]; {fix}"
    )


def _check_soft(
    name: str, target: Tensor, weight: Tensor | None, exclusive: bool, tell_hard: bool
) -> bool:
    """Check soft values; return whether they are known to be zeros and ones only."""
    if not _readable(target):
        return False
    if tell_hard:  # y - y^2 is 0 for 0 and 1, above between them, below outside
        fits, hard = _within(torch.addcmul(target, target, target, value=-1), 0)
    else:
        fits, hard = _within(target, 1)[0], False
    # -0.0, and what an interpolated mask has by rounding, will do.
    if not fits and not bool(((target >= -_ROUNDING) & (target <= 1 + _ROUNDING)).all()):
        low, high = target.amin().item(), target.amax().item()
        bad = low if low < -_ROUNDING else high
        if bad == 255:
            fix = "divide a 0/255 mask by 255; void pixels of 255 need integer labels and "
            fix += "ignore_index=255"
        elif bad != bad:
            fix = "give pixels without truth pixel_weight=0"
        elif float(bad).is_integer() and bad > 1:
            fix = "if these are class indices, make them integer labels: target.long()"
        else:
            fix = "if these are logits, apply sigmoid or softmax first"
        raise ValueError(
            f"{name}: target holds the value {bad:.7g} but soft targets need values in [0, 1]; "
            f"{fix}"
        )
    if exclusive:
        total = target.sum(1)
        if weight is not None:
            total = torch.where(weight.squeeze(1) > 0, total, 1)
        low, high = total.amin().item(), total.amax().item()
        if low < 0.99 or high > 1.01:
            bad = low if low < 0.99 else high
            raise ValueError(
                f"{name}: target's channels add up to {bad:g} at some pixel but exclusive classes "
                "need 1; for overlapping classes pass multilabel=True, for pixels without a class "
                "pixel_weight=0"
            )
    return hard


def _equals(labels: Tensor, value: int) -> Tensor:
    # torch would wrap a value that the dtype cannot hold: uint8 labels of 1 "equal" 257.
    limits = (0, 1)
    if labels.dtype != torch.bool:
        limits = torch.iinfo(labels.dtype).min, torch.iinfo(labels.dtype).max
    if not limits[0] <= value <= limits[1]:
        return torch.zeros_like(labels, dtype=torch.bool)
    return labels == value


def _within(values: Tensor, top: int) -> tuple[bool, bool]:
    """Whether all values lie in [0, 1], and whether none is above ``top``."""
    # Floats from 0 to 1 are ordered as their bits are, and everything else, NaN included, has bits
    # below or above: one integer pass instead of two floating ones.
    bits, one = _BITS[values.dtype]
    low, high = values.view(bits).aminmax()
    high = high.item()
    fits = low.item() >= 0 and high <= one
    return fits, fits and high <= top * one


_ROUNDING = 1e-4
_BITS = {
    dtype: (bits, torch.ones((), dtype=dtype).view(bits).item())
    for dtype, bits in ((torch.float32, torch.int32), (torch.float64, torch.int64))
}


def _check_weight(name: str, argument: str, weight: Tensor) -> None:
    if not _readable(weight):
        return
    low, high = weight.amin().item(), weight.amax().item()
    if not (low >= 0 and high < float("inf")):
        bad = low if low < 0 else high
        fix = "a class or pixel that shall not count gets weight 0"
        raise ValueError(
            f"{name}: {argument} holds the value {bad:g} but weights must be finite and >= 0; {fix}"
        )


def runs_eagerly() -> bool:
    """Whether operations run one by one, neither compiled nor under ``torch.func``."""
    return not (
        torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None
    )


def _readable(tensor: Tensor) -> bool:
    """Whether the values may be looked at: see :func:`set_value_checks`."""
    if not _value_checks or torch.compiler.is_compiling() or tensor.device.type != "cpu":
        return False
    if type(tensor) is not Tensor and isinstance(tensor, torch._subclasses.FakeTensor):
        return False
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return False
        tensor = functorch.get_unwrapped(tensor)
    return tensor.numel() > 0


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
