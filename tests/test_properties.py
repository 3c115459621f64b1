"""Properties that hold for every input, on inputs that nobody chose."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import KINDS, gradient, names_and_kinds
from torch import Tensor

from seglosses_nb import LOSSES, LossInfo, dice_loss

search = settings(
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def on(applies: Callable[[LossInfo, str], bool]) -> pytest.MarkDecorator:
    """Run a property on the losses and kinds of target for which it is stated."""
    chosen = [(n, kind) for n, kind in names_and_kinds() if applies(LOSSES[n], kind)]
    return pytest.mark.parametrize(("name", "kind"), chosen)


EVERY = on(lambda info, kind: True)
REGION = {name for name, info in LOSSES.items() if "aggregate" in info.parameters}


@st.composite
def batches(
    draw, kind: str, space_dims: tuple[int, ...] = (1, 2, 3)
) -> tuple[Tensor, Tensor, dict]:
    """Draw logits and a target of some kind: any shape, any imbalance, any confidence."""
    assert kind in KINDS
    images = draw(st.integers(1, 3))
    dims = draw(st.sampled_from(space_dims))
    space = tuple(draw(st.integers(1, {1: 12, 2: 5, 3: 3}[dims])) for _ in range(dims))
    classes = 1 if "binary" in kind else draw(st.integers(2, 4))
    scale = draw(st.sampled_from([0.1, 1.0, 4.0, 20.0]))
    share = draw(st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    shape = (images, classes, *space)
    logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    named = {"multilabel": True} if "multilabel" in kind else {}
    if kind == "soft multiclass":
        soft = (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(1)
        return logits, soft, named
    if kind.startswith("soft"):
        return logits, torch.rand(shape, generator=generator, dtype=torch.float64), named
    label_shape = shape if kind == "multilabel" else (images, *space)
    top = classes - 1 if kind == "multiclass" else 1
    foreground = torch.rand(label_shape, generator=generator) < share
    target = foreground * torch.randint(1, top + 1, label_shape, generator=generator)
    return logits, target, named


def parameters(draw: Any, name: str, kind: str) -> dict[str, Any]:
    """Draw the parameters that a region loss has beyond the others."""
    if name not in REGION:
        return {}
    named = {
        "aggregate": draw(st.sampled_from(["image", "batch"])),
        "absent": draw(st.sampled_from(["smooth", "skip", "worst"])),
        "smooth": draw(st.sampled_from([0.0, 1e-5, 1.0, 10.0])),
    }
    if "squared" in LOSSES[name].parameters:
        named["squared"] = draw(st.booleans())
    if "multiclass" in kind:
        named["include_background"] = draw(st.booleans())
    return named


def close(found: Tensor, expected: Tensor, atol: float = 1e-13) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=atol)


@EVERY
@search
@given(data=st.data())
def test_values_keep_their_bounds(name, kind, data):
    """Finite, within the declared range, and so is what becomes of them."""
    logits, target, named = data.draw(batches(kind))
    named |= parameters(data.draw, name, kind)
    low, high = LOSSES[name].value_range
    none = LOSSES[name].function(logits, target, reduction="none", **named)
    assert none.isfinite().all()
    assert (none >= low).all()
    assert (none <= high + 1e-12).all()
    mean = LOSSES[name].function(logits, target, **named)
    assert none.min() - 1e-12 <= mean <= none.max() + 1e-12
    assert gradient(LOSSES[name].function, logits, target, **named).isfinite().all()


@on(lambda info, kind: not info.spatial)
@search
@given(data=st.data())
def test_the_order_of_pixels_and_images_does_not_matter(name, kind, data):
    logits, target, named = data.draw(batches(kind, (1,)))
    named |= parameters(data.draw, name, kind)
    weight = torch.rand(logits.shape[0], logits.shape[2], dtype=torch.float64)
    pixels = torch.randperm(logits.shape[2], generator=torch.Generator().manual_seed(1))
    images = torch.randperm(logits.shape[0], generator=torch.Generator().manual_seed(2))
    loss = LOSSES[name].function
    value = loss(logits, target, pixel_weight=weight, **named)
    turned = loss(
        logits[..., pixels][images],
        target[..., pixels][images],
        pixel_weight=weight[..., pixels][images],
        **named,
    )
    close(turned, value)
    none = loss(logits, target, reduction="none", **named)
    moved = loss(logits[images], target[images], reduction="none", **named)
    if named.get("aggregate") == "batch":
        close(moved, none)
    else:
        close(moved, none[images])


@on(lambda info, kind: "binary" not in kind)
@search
@given(data=st.data())
def test_the_order_of_classes_does_not_matter(name, kind, data):
    logits, target, named = data.draw(batches(kind))
    named |= parameters(data.draw, name, kind) | {"reduction": "none"}
    named.pop("include_background", None)  # it singles out class 0
    classes = logits.shape[1]
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(3))
    new_label = torch.empty(classes, dtype=torch.long)
    new_label[order] = torch.arange(classes)
    renamed = new_label[target] if kind == "multiclass" else target[:, order]
    loss = LOSSES[name].function
    value, moved = loss(logits, target, **named), loss(logits[:, order], renamed, **named)
    if kind.endswith("multiclass") and name not in REGION:
        close(moved, value)
    else:
        close(moved, value[:, order])


@on(lambda info, kind: not info.spatial)
@search
@given(data=st.data())
def test_the_shape_of_space_does_not_matter(name, kind, data):
    """A volume is the row of its pixels."""
    logits, target, named = data.draw(batches(kind, (2, 3)))
    named |= parameters(data.draw, name, kind)
    row = target.flatten(2) if target.shape == logits.shape else target.flatten(1)
    loss = LOSSES[name].function
    close(loss(logits.flatten(2), row, **named), loss(logits, target, **named))


@on(lambda info, kind: info.monotone and "soft" not in kind)
@search
@given(data=st.data())
def test_one_pixel_nearer_to_the_truth_never_costs(name, kind, data):
    logits, target, named = data.draw(batches(kind))
    named |= parameters(data.draw, name, kind)
    if named.get("absent") == "skip":
        del named["absent"]
    step = data.draw(st.sampled_from([1e-3, 0.5, 5.0]))
    if kind == "multiclass":
        truth = torch.nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1)
    else:
        truth = target.reshape(logits.shape)
    # exclusive classes: the truth's logit rises, and all the others lose to it
    direction = truth.double() if kind == "multiclass" else 2.0 * truth - 1
    places = [data.draw(st.integers(0, size - 1)) for size in (logits.shape[0], *logits.shape[2:])]
    place = (places[0], slice(None), *places[1:])
    better = logits.clone()
    better[place] += step * direction[place]
    loss = LOSSES[name].function
    assert loss(better, target, **named) <= loss(logits, target, **named) + 1e-12
    downhill = -(gradient(loss, logits, target, **named)[place] * direction[place])
    assert (downhill >= -1e-12).all()


@EVERY
@search
@given(data=st.data())
def test_the_scale_of_weights_does_not_matter_to_a_mean(name, kind, data):
    logits, target, named = data.draw(batches(kind))
    weight = torch.rand(logits.shape[0], *logits.shape[2:], dtype=torch.float64)
    factor = data.draw(st.sampled_from([0.25, 3.0, 1000.0]))
    loss = LOSSES[name].function
    if name in REGION:  # a smoothing term is a number of pixels, and pixels are what weights count
        value = loss(logits, target, pixel_weight=weight, smooth=1.0, **named)
        scaled = loss(logits, target, pixel_weight=factor * weight, smooth=factor, **named)
    else:
        value = loss(logits, target, pixel_weight=weight, **named)
        scaled = loss(logits, target, pixel_weight=factor * weight, **named)
        total = loss(logits, target, pixel_weight=weight, reduction="sum", **named)
        scaled_total = loss(logits, target, pixel_weight=factor * weight, reduction="sum", **named)
        close(scaled_total, factor * total)
    close(scaled, value)


@EVERY
@search
@given(data=st.data())
def test_a_weight_of_1_everywhere_is_no_weight(name, kind, data):
    logits, target, named = data.draw(batches(kind))
    named |= parameters(data.draw, name, kind)
    ones = torch.ones(logits.shape[0], *logits.shape[2:], dtype=torch.float64)
    loss = LOSSES[name].function
    close(loss(logits, target, pixel_weight=ones, **named), loss(logits, target, **named))


@EVERY
@search
@given(data=st.data())
def test_cropping_equals_ignoring(name, kind, data):
    """A strip along one border, on images of one to three dimensions."""
    logits, target, named = data.draw(batches(kind))
    named |= parameters(data.draw, name, kind)
    axis = data.draw(st.integers(2, logits.ndim - 1)) - logits.ndim
    width = logits.shape[axis]
    if width == 1:
        return
    kept = data.draw(st.integers(1, width - 1))
    loss = LOSSES[name].function
    cut = loss(logits.narrow(axis, 0, kept), target.narrow(axis, 0, kept), **named)
    spoilt = logits.clone()
    spoilt.narrow(axis, kept, width - kept).fill_(float("nan"))
    weight = torch.ones(logits.shape[0], *logits.shape[2:])
    weight.narrow(axis, kept, width - kept).fill_(0)
    close(loss(spoilt, target, pixel_weight=weight, **named), cut)
    if not target.is_floating_point():
        void = target.clone()
        void.narrow(axis, kept, width - kept).fill_(255)
        close(loss(spoilt, void, ignore_index=255, **named), cut)
        slope = gradient(loss, spoilt, void, ignore_index=255, **named)
        assert (slope.narrow(axis, kept, width - kept) == 0).all()


@EVERY
@search
@given(data=st.data())
def test_a_batch_of_copies_is_one_image(name, kind, data):
    logits, target, named = data.draw(batches(kind))
    named |= parameters(data.draw, name, kind)
    if named.get("aggregate") == "batch":
        named["smooth"] = 0.0  # one image has one smoothing term, two have one too
    if named.get("absent") == "skip":
        del named["absent"]
    loss = LOSSES[name].function
    twice = loss(torch.cat([logits, logits]), torch.cat([target, target]), **named)
    close(twice, loss(logits, target, **named))


@on(lambda info, kind: "soft" not in kind)
@search
@given(data=st.data())
def test_the_perfect_prediction_has_the_declared_minimum(name, kind, data):
    logits, target, named = data.draw(batches(kind))
    named |= parameters(data.draw, name, kind)
    if kind == "multiclass":
        truth = torch.nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1)
    else:
        truth = target.reshape(logits.shape)
    loss = LOSSES[name].function
    perfect = loss(1e4 * (2.0 * truth.double() - 1), target, **named)
    close(perfect, torch.tensor(LOSSES[name].minimum, dtype=torch.float64), 1e-12)
    assert loss(logits, target, **named) >= perfect


# ------------------------------------------------------------------------------------------- Dice


@search
@given(data=st.data())
def test_dice_is_between_its_score_and_the_jaccard_index(data):
    """With D = dice_loss and no smoothing, J = 2 D / (1 + D) is the soft Jaccard loss."""
    logits, target, _ = data.draw(batches("binary"))
    p, y = logits.sigmoid().flatten(1), target.flatten(1).double()
    tp, fp, fn = (p * y).sum(1), (p * (1 - y)).sum(1), ((1 - p) * y).sum(1)
    dice = dice_loss(logits, target, smooth=0.0, reduction="none").squeeze(1)
    jaccard = (fp + fn) / (tp + fp + fn)
    close(2 * dice / (1 + dice), jaccard)
    close(dice, 1 - 2 * tp / (2 * tp + fp + fn))
    assert (dice <= jaccard + 1e-12).all()


@search
@given(data=st.data())
def test_dice_is_symmetric_in_prediction_and_truth(data):
    logits, soft, _ = data.draw(batches("soft binary"))
    p = logits.sigmoid()
    for squared in (False, True):
        close(
            dice_loss(soft.logit(), p, squared=squared),
            dice_loss(logits, soft, squared=squared),
            1e-10,
        )


@search
@given(data=st.data())
def test_more_smoothing_means_less_loss(data):
    logits, target, named = data.draw(batches("multiclass"))
    squared = data.draw(st.booleans())
    values = [
        dice_loss(logits, target, smooth=s, squared=squared, **named) for s in (0, 0.1, 1, 10, 1e6)
    ]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(values))
    assert values[-1] < 1e-3


@search
@given(data=st.data())
def test_batch_dice_lies_between_the_images(data):
    """A ratio of sums is a mean of the ratios, weighted by the sizes."""
    logits, target, _ = data.draw(batches("binary"))
    images = dice_loss(logits, target, smooth=0.0, reduction="none")
    batch = dice_loss(logits, target, smooth=0.0, aggregate="batch")
    assert images.min() - 1e-12 <= batch <= images.max() + 1e-12


@search
@given(data=st.data())
def test_worst_costs_at_least_smooth_and_skip_leaves_the_rest(data):
    logits, target, _ = data.draw(batches("multiclass"))
    by = {
        a: dice_loss(logits, target, absent=a, reduction="none")
        for a in ("smooth", "skip", "worst")
    }
    one_hot = torch.nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1)
    present = one_hot.flatten(2).any(2)
    close(by["worst"][present], by["smooth"][present])
    close(by["skip"][present], by["smooth"][present])
    assert (by["skip"][~present] == 0).all()
    assert (by["worst"] >= by["smooth"] - 1e-12).all()
