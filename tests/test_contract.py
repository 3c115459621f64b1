"""What every loss inherits from the contract: one meaning for every argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from samples import (
    BINARY,
    CLASSES,
    MASKS,
    ONE,
    SOFT_ONE,
    SOFT_THREE,
    THREE,
    gradient,
    labels,
    normal,
    with_value,
)
from torch import Tensor

from seglosses_nb import binary_cross_entropy, cross_entropy, dice_loss, set_value_checks

ALL = (binary_cross_entropy, cross_entropy, dice_loss)
PIXEL = (binary_cross_entropy, cross_entropy)
MULTICLASS = (cross_entropy, dice_loss)
NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=ALL, ids=lambda loss: loss.__name__)
def loss(request) -> Callable[..., Tensor]:
    """Every loss, in the mode that all of them have: binary."""
    return request.param


@pytest.fixture(params=MULTICLASS, ids=lambda loss: loss.__name__)
def multiclass(request) -> Callable[..., Tensor]:
    """Every loss that takes exclusive classes."""
    return request.param


# --------------------------------------------------------------------------------------- reductions


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
def test_mean_and_sum_follow_from_none(weighted, ignored):
    """sum = none.sum() and mean = none.sum() / sum of the weights, for pixels."""
    weight = torch.rand(2, 8, 8, dtype=torch.float64) if weighted else torch.ones(2, 8, 8)
    target = with_value(CLASSES, 255) if ignored else CLASSES
    named = {"ignore_index": 255} | ({"pixel_weight": weight} if weighted else {})
    none = cross_entropy(THREE, target, reduction="none", **named)
    total = cross_entropy(THREE, target, reduction="sum", **named)
    mean = cross_entropy(THREE, target, reduction="mean", **named)
    counted = (weight * (target != 255)).sum()
    assert none.shape == (2, 8, 8)
    torch.testing.assert_close(total, none.sum())
    torch.testing.assert_close(mean, none.sum() / counted)
    if ignored:
        assert none[target == 255].tolist() == [0.0]


def test_mean_divides_by_every_answer_of_a_multilabel_target():
    weight = torch.rand(2, 8, 8, dtype=torch.float64)
    masks = MASKS.clone()
    masks[0, 1, 2] = 9
    named = {"multilabel": True, "ignore_index": 9, "pixel_weight": weight}
    for loss in PIXEL:
        none = loss(THREE, masks, reduction="none", **named)
        assert none.shape == (2, 3, 8, 8)
        counted = (weight.unsqueeze(1) * (masks != 9)).sum()
        torch.testing.assert_close(loss(THREE, masks, **named), none.sum() / counted)
        without = loss(THREE, MASKS, multilabel=True, pixel_weight=weight)
        none = loss(THREE, MASKS, multilabel=True, pixel_weight=weight, reduction="none")
        torch.testing.assert_close(without, none.sum() / (3 * weight.sum()))


@pytest.mark.parametrize(
    ("named", "shape", "weights"),
    [
        ({}, (2, 3), [[1, 1, 1], [1, 1, 1]]),
        ({"include_background": False}, (2, 2), [[1, 1], [1, 1]]),
        ({"aggregate": "batch"}, (1, 3), [[1, 1, 1]]),
        ({"aggregate": "batch", "include_background": False}, (1, 2), [[1, 1]]),
        ({"class_weight": [1, 2, 4]}, (2, 3), [[1, 2, 4], [1, 2, 4]]),
        ({"class_weight": [1, 2, 4], "include_background": False}, (2, 2), [[2, 4], [2, 4]]),
        ({"absent": "skip"}, (2, 3), [[1, 1, 0], [1, 1, 1]]),
        ({"absent": "skip", "class_weight": (1, 2, 4)}, (2, 3), [[1, 2, 0], [1, 2, 4]]),
        ({"absent": "skip", "aggregate": "batch"}, (1, 3), [[1, 1, 1]]),
    ],
)
def test_mean_and_sum_of_regions_follow_from_none(named, shape, weights):
    target = CLASSES.clone()
    target[0] = target[0].clamp_max(1)  # the first image lacks class 2
    none = dice_loss(THREE, target, reduction="none", **named)
    plain = dice_loss(
        THREE, target, reduction="none", **{k: v for k, v in named.items() if k not in ("absent",)}
    )
    assert none.shape == shape
    weights = torch.tensor(weights, dtype=torch.float64)
    torch.testing.assert_close(none, plain * (weights > 0))
    torch.testing.assert_close(dice_loss(THREE, target, reduction="sum", **named), none.sum())
    torch.testing.assert_close(dice_loss(THREE, target, **named), none.sum() / weights.sum())


# ---------------------------------------------------------------------- ignored and weighted pixels


def flattened(kind: str) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return one row of pixels of two images, so that pixels can be cut out."""
    if kind == "binary":
        return normal(2, 1, 12), labels(2, 12), {}
    if kind == "multiclass":
        return normal(2, 3, 12), labels(2, 12, top=2), {}
    return normal(2, 3, 12), labels(2, 3, 12), {"multilabel": True}


def kinds(*losses: Callable[..., Tensor]) -> list:
    """Return the pairs of loss and kind of target that exist."""
    return [
        pytest.param(loss, kind, id=f"{loss.__name__}-{kind}")
        for loss in losses
        for kind in ("binary", "multiclass", "multilabel")
        if not (loss is binary_cross_entropy and kind == "multiclass")
    ]


OPTIONS = {
    binary_cross_entropy: [{}],
    cross_entropy: [{}],
    dice_loss: [{}, {"squared": True, "smooth": 0.0}, {"aggregate": "batch"}, {"absent": "skip"}],
}


@pytest.mark.parametrize("how", ["ignore_index", "pixel_weight"])
@pytest.mark.parametrize(("loss", "kind"), kinds(*ALL))
def test_an_ignored_pixel_is_as_good_as_cut_out(loss, kind, how):
    logits, target, named = flattened(kind)
    spoilt = target.clone()
    spoilt[..., 4:7] = 255
    logits[..., 4] = NAN
    logits[..., 5] = INF
    logits[..., 6] = -INF
    keep = [0, 1, 2, 3, 7, 8, 9, 10, 11]
    if how == "ignore_index":
        extra = {"ignore_index": 255}
    else:
        weight = torch.ones(2, 12)
        weight[:, 4:7] = 0
        spoilt, extra = target, {"pixel_weight": weight}
    for options in OPTIONS[loss]:
        cut = loss(logits[..., keep], target[..., keep], **named, **options)
        value = loss(logits, spoilt, **named, **options, **extra)
        torch.testing.assert_close(value, cut, rtol=1e-12, atol=0)
        slope = gradient(loss, logits, spoilt, **named, **options, **extra)
        cut_slope = gradient(loss, logits[..., keep], target[..., keep], **named, **options)
        assert (slope[..., 4:7] == 0).all()
        torch.testing.assert_close(slope[..., keep], cut_slope, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("loss", "kind"), kinds(*ALL))
def test_soft_targets_under_weight_0_may_be_anything(loss, kind):
    logits, target, named = flattened(kind)
    soft = target.double()
    if kind == "multiclass":
        soft = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    elif kind == "binary":
        soft = soft.unsqueeze(1)
    weight = torch.ones(2, 12)
    weight[:, 3] = 0
    expected = loss(logits, soft, pixel_weight=weight, **named)
    for rubbish in (NAN, INF, -INF, -3.0, 255.0):
        spoilt = soft.clone()
        spoilt[:, :, 3] = rubbish
        assert loss(logits, spoilt, pixel_weight=weight, **named) == expected
        slope = gradient(loss, logits, spoilt, pixel_weight=weight, **named)
        assert slope.isfinite().all()
        assert (slope[:, :, 3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rubbish_under_ignored_pixels_stays_there_in_every_dtype(loss, dtype):
    logits, target, _ = flattened("binary")
    logits, target = logits.to(dtype), target.clone()
    target[:, 2] = -100
    spoilt = logits.clone()
    spoilt[:, :, 2] = NAN
    expected = loss(logits, target, ignore_index=-100)
    assert loss(spoilt, target, ignore_index=-100) == expected
    assert gradient(loss, spoilt, target, ignore_index=-100).isfinite().all()


@pytest.mark.parametrize(("loss", "kind"), kinds(*ALL))
def test_weight_2_counts_a_pixel_twice(loss, kind):
    logits, target, named = flattened(kind)
    weight = torch.ones(2, 12)
    weight[:, 3] = 2
    twice = [*range(12), 3]
    for options in OPTIONS[loss]:
        value = loss(logits, target, pixel_weight=weight, **named, **options)
        expected = loss(logits[..., twice], target[..., twice], **named, **options)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("loss", "kind"), kinds(*ALL))
def test_ignored_and_weighted_pixels_combine(loss, kind):
    logits, target, named = flattened(kind)
    weight = torch.rand(2, 12, dtype=torch.float64)
    spoilt = target.clone()
    spoilt[..., 5] = 255
    for options in OPTIONS[loss]:
        both = loss(logits, spoilt, ignore_index=255, pixel_weight=weight, **named, **options)
        zeroed = weight.clone()
        zeroed[:, 5] = 0
        expected = loss(logits, target, pixel_weight=zeroed, **named, **options)
        torch.testing.assert_close(both, expected, rtol=1e-12, atol=0)


def test_integer_weights_are_weights(loss):
    weight = torch.randint(0, 4, (2, 8, 8))
    torch.testing.assert_close(
        loss(ONE, BINARY, pixel_weight=weight), loss(ONE, BINARY, pixel_weight=weight.double())
    )


@pytest.mark.parametrize("loss", ALL)
def test_a_mask_may_ignore_single_answers_of_a_pixel(loss):
    """Multilabel masks with ignored entries: the channel loses the pixel, the others keep it."""
    logits, target, _ = flattened("multilabel")
    spoilt = target.clone()
    spoilt[:, 1, 4:8] = 255
    value = loss(logits, spoilt, multilabel=True, ignore_index=255, reduction="none")
    alone = loss(logits[:, [0, 2]], target[:, [0, 2]], multilabel=True, reduction="none")
    torch.testing.assert_close(value[:, [0, 2]], alone)
    keep = [0, 1, 2, 3, 8, 9, 10, 11]
    cut = loss(logits[:, 1:2, keep], target[:, 1:2, keep], multilabel=True, reduction="none")
    middle = value[:, 1:2] if loss is dice_loss else value[:, 1:2][..., keep]
    torch.testing.assert_close(middle, cut)
    slope = gradient(loss, logits, spoilt, multilabel=True, ignore_index=255)
    assert (slope[:, 1, 4:8] == 0).all()
    assert (slope[:, 0, 4:8] != 0).all()


def test_ignoring_a_real_class(loss):
    """``ignore_index`` may be one of the classes; a mask's background, for example."""
    logits, target, _ = flattened("binary")
    weight = (target != 0).double()
    torch.testing.assert_close(
        loss(logits, target, ignore_index=0), loss(logits, target, pixel_weight=weight)
    )


@pytest.mark.parametrize(
    ("dtype", "ignore_index"),
    [
        (torch.uint8, -1),
        (torch.uint8, 257),
        (torch.uint8, 256),
        (torch.int8, 255),
        (torch.int8, 257),
        (torch.int16, 65537),
        (torch.bool, 255),
        (torch.bool, 2),
        (torch.bool, -100),
    ],
)
def test_an_ignored_label_beyond_the_dtype_ignores_nothing(loss, dtype, ignore_index):
    """In uint8, 257 is 1 to torch's comparison: it would leave the whole foreground out."""
    torch.testing.assert_close(
        loss(ONE, BINARY.to(dtype), ignore_index=ignore_index), loss(ONE, BINARY)
    )


def test_images_without_a_valid_pixel_leave_the_mean(multiclass):
    target = CLASSES.clone()
    target[0] = 255
    for options in OPTIONS[multiclass]:
        both = multiclass(THREE, target, ignore_index=255, **options)
        alone = multiclass(THREE[1:], target[1:], **options)
        torch.testing.assert_close(both, alone, rtol=1e-12, atol=0)
        weight = torch.ones(2, 8, 8)
        weight[0] = 0
        weighted = multiclass(THREE, CLASSES, pixel_weight=weight, **options)
        torch.testing.assert_close(
            weighted, multiclass(THREE[1:], CLASSES[1:], **options), rtol=1e-12, atol=0
        )


@pytest.mark.parametrize(("loss", "kind"), kinds(*ALL))
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nothing_to_learn_from_is_0_without_a_gradient(loss, kind, reduction):
    logits, target, named = flattened(kind)
    logits[0, 0, 0] = NAN
    for extra in (
        {"ignore_index": 255, "target": torch.full_like(target, 255)},
        {"pixel_weight": torch.zeros(2, 12), "target": target},
    ):
        target_, extra = extra.pop("target"), extra
        for options in OPTIONS[loss]:
            value = loss(logits, target_, reduction=reduction, **named, **extra, **options)
            assert (value == 0).all()
            slope = gradient(
                loss, logits, target_, reduction=reduction, **named, **extra, **options
            )
            assert (slope == 0).all()


def test_a_channel_without_a_valid_pixel_leaves_the_mean():
    """The same with ``aggregate="batch"``: one image is a batch."""
    logits = normal(1, 2, 12)
    masks = labels(1, 2, 12)
    masks[:, 1] = 255
    alone = dice_loss(logits[:, :1], masks[:, :1], multilabel=True)
    for aggregate in ("image", "batch"):
        value = dice_loss(logits, masks, multilabel=True, ignore_index=255, aggregate=aggregate)
        torch.testing.assert_close(value, alone)


# ------------------------------------------------------------------------- classes of region losses


def test_absent_classes():
    """Class 2 is absent: smooth pays FP / (FP + s), skip leaves it out, worst pays 1."""
    logits, target = normal(1, 3, 12), labels(1, 12)
    p = logits.softmax(1)
    none = {a: dice_loss(logits, target, absent=a, reduction="none")[0] for a in OPTION_ABSENT}
    fp = p[0, 2].sum()
    torch.testing.assert_close(none["smooth"][2], fp / (fp + 1))
    assert none["skip"][2] == 0
    assert none["worst"][2] == 1
    for absent in OPTION_ABSENT:
        torch.testing.assert_close(none[absent][:2], none["smooth"][:2])
    torch.testing.assert_close(dice_loss(logits, target, absent="skip"), none["smooth"][:2].mean())
    slope = gradient(dice_loss, logits, target, absent="worst", class_weight=[0, 0, 1])
    assert slope.abs().max() < 1e-30  # a constant
    slope = gradient(dice_loss, logits, target, absent="smooth", class_weight=[0, 0, 1])
    assert (slope[0, 2] > 0).all()


OPTION_ABSENT = ("smooth", "skip", "worst")


@pytest.mark.parametrize("smooth", [0.0, 1e-5, 1.0, 100.0])
@pytest.mark.parametrize("squared", [False, True])
def test_worst_is_1_whatever_the_smoothing_and_0_for_no_prediction(smooth, squared):
    target = torch.zeros(1, 12, dtype=torch.long)
    for dtype in (torch.float32, torch.float64):
        named = {"smooth": smooth, "squared": squared, "absent": "worst"}
        some = torch.full((1, 1, 12), -8.0, dtype=dtype)
        some[0, 0, 0] = 8.0
        assert dice_loss(some, target, **named).item() == pytest.approx(1, abs=1e-6)
        nothing = torch.full((1, 1, 12), -1e4, dtype=dtype)
        assert dice_loss(nothing, target, **named) == 0
        assert (gradient(dice_loss, nothing, target, **named) == 0).all()


def test_skipping_every_class_is_0_without_a_gradient():
    target = torch.zeros(2, 12, dtype=torch.long)
    logits = normal(2, 1, 12)
    for aggregate in ("image", "batch"):
        assert dice_loss(logits, target, absent="skip", aggregate=aggregate) == 0
        assert (gradient(dice_loss, logits, target, absent="skip", aggregate=aggregate) == 0).all()


def test_class_weight():
    none = dice_loss(THREE, CLASSES, reduction="none")
    weights = torch.tensor([0.5, 2, 3], dtype=torch.float64)
    expected = (none * weights).sum() / (2 * weights.sum())
    for given in ([0.5, 2, 3], (0.5, 2, 3), weights, weights.float(), np.array([0.5, 2, 3])):
        torch.testing.assert_close(dice_loss(THREE, CLASSES, class_weight=given), expected)
    only = dice_loss(THREE, CLASSES, class_weight=[0, 1, 0])
    torch.testing.assert_close(only, none[:, 1].mean())
    whole = dice_loss(THREE, CLASSES, class_weight=[1, 2, 4])
    torch.testing.assert_close(whole, dice_loss(THREE, CLASSES, class_weight=[5, 10, 20]))
    assert dice_loss(THREE, CLASSES, class_weight=[0, 0, 0]) == 0
    background = dice_loss(THREE, CLASSES, class_weight=[9, 2, 3], include_background=False)
    torch.testing.assert_close(background, (none[:, 1:] * weights[1:]).sum() / (2 * 5.0))


def test_a_class_weight_can_be_learnt():
    weights = torch.tensor([0.5, 2, 3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w: dice_loss(THREE, CLASSES, class_weight=w.exp()), weights
    )


def test_background_left_out_has_a_gradient_only_through_the_softmax():
    value = dice_loss(THREE, CLASSES, include_background=False)
    none = dice_loss(THREE, CLASSES, reduction="none")
    torch.testing.assert_close(value, none[:, 1:].mean())


def test_batch_sums_over_images_first():
    logits, target = normal(3, 1, 12), labels(3, 12)
    joined = dice_loss(logits.movedim(0, 1).reshape(1, 1, -1), target.reshape(1, -1))
    torch.testing.assert_close(dice_loss(logits, target, aggregate="batch"), joined)
    assert dice_loss(logits, target) != joined


# -------------------------------------------------------------------------------------------- modes


def test_one_channel_is_one_yes_or_no_question(loss):
    """Labels with and without the channel axis, bool, floats and multilabel: one value."""
    expected = loss(ONE, BINARY)
    for target in (
        BINARY.unsqueeze(1),
        BINARY.bool(),
        BINARY.bool().unsqueeze(1),
        BINARY.unsqueeze(1).double(),
        BINARY.unsqueeze(1).float(),
        BINARY.unsqueeze(1).half(),
    ):
        torch.testing.assert_close(loss(ONE, target), expected)
    multilabel = loss(ONE, BINARY.unsqueeze(1), multilabel=True)
    torch.testing.assert_close(multilabel, expected)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.uint16,
        torch.uint32,
        torch.uint64,
    ],
)
def test_labels_of_every_integer_dtype(dtype, multiclass):
    """16-bit masks are common in medicine and microscopy."""
    torch.testing.assert_close(multiclass(THREE, CLASSES.to(dtype)), multiclass(THREE, CLASSES))
    void = with_value(CLASSES, 100)
    torch.testing.assert_close(
        multiclass(THREE, void.to(dtype), ignore_index=100),
        multiclass(THREE, void, ignore_index=100),
    )
    with pytest.raises(ValueError, match="target holds the label 100"):
        multiclass(THREE, void.to(dtype))


def test_bool_masks_of_several_labels(loss):
    torch.testing.assert_close(
        loss(THREE, MASKS.bool(), multilabel=True), loss(THREE, MASKS.double(), multilabel=True)
    )


def test_labels_equal_their_one_hot_form(multiclass):
    one_hot = torch.nn.functional.one_hot(CLASSES, 3).movedim(-1, 1).double()
    torch.testing.assert_close(multiclass(THREE, CLASSES), multiclass(THREE, one_hot))
    torch.testing.assert_close(
        gradient(multiclass, THREE, CLASSES), gradient(multiclass, THREE, one_hot)
    )


def test_multilabel_channels_are_independent(loss):
    together = loss(THREE, MASKS, multilabel=True, reduction="none")
    for c in range(3):
        alone = loss(THREE[:, c : c + 1], MASKS[:, c : c + 1], multilabel=True, reduction="none")
        torch.testing.assert_close(together[:, c : c + 1], alone)


@pytest.mark.parametrize(("loss", "kind"), kinds(*ALL))
def test_the_minimum_for_a_soft_target_is_at_the_target(loss, kind):
    """No step in any direction from p = y lowers the loss, and the gradient there is 0."""
    logits, _, named = flattened(kind)
    soft = logits.softmax(1) if kind == "multiclass" else logits.sigmoid()
    for options in OPTIONS[loss]:
        lowest = loss(logits, soft, **named, **options)
        if loss is dice_loss:
            assert lowest == pytest.approx(0, abs=1e-12)
        for seed in range(20):
            step = 0.3 * normal(*logits.shape, seed=seed)
            assert loss(logits + step, soft, **named, **options) > lowest
        slope = gradient(loss, logits, soft, **named, **options)
        torch.testing.assert_close(slope, torch.zeros_like(slope))


def test_ties_of_prediction_and_soft_target_have_one_gradient():
    """Zero logits against soft labels of a half tie: eager and functional code take the middle."""
    logits, soft = torch.zeros(1, 1, 8, dtype=torch.float64), torch.full((1, 1, 8), 0.5).double()
    soft[..., :3] = 0.9
    slope = gradient(dice_loss, logits, soft)
    torch.testing.assert_close(torch.func.grad(lambda z: dice_loss(z, soft))(logits), slope)
    above, below = (gradient(dice_loss, logits + step, soft) for step in (1e-9, -1e-9))
    torch.testing.assert_close(slope, (above + below) / 2)


def test_a_soft_target_within_rounding_of_0_and_1_is_welcome(loss):
    """Interpolated masks and softmax outputs overshoot by an ulp or two."""
    over = with_value(SOFT_ONE, 1 + 2e-7).float()
    assert loss(ONE.float(), over).isfinite()
    assert loss(ONE.float(), with_value(SOFT_ONE, -1e-7).float()).isfinite()
    assert loss(ONE, with_value(SOFT_ONE, -0.0)).isfinite()


# -------------------------------------------------------------------------------- sizes and layouts


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(0, 1, 4, 5), (2, 1, 0, 5), (2, 1, 0), (0, 1, 0)])
def test_empty_batches_and_empty_images(loss, shape, reduction):
    logits = torch.zeros(shape, requires_grad=True)
    target = torch.zeros(shape[0], *shape[2:], dtype=torch.long)
    weight = torch.ones(target.shape)
    for named in ({}, {"ignore_index": 255}, {"pixel_weight": weight}):
        for options in OPTIONS[loss]:
            for y in (target, torch.zeros(shape)):
                if y.is_floating_point() and "ignore_index" in named:
                    continue
                value = loss(logits, y, reduction=reduction, **named, **options)
                assert (value == 0).all()
                value.sum().backward()


def test_an_empty_batch_of_classes(multiclass):
    logits = torch.zeros(0, 3, 4, 5)
    for target in (torch.zeros(0, 4, 5, dtype=torch.long), torch.zeros(0, 3, 4, 5)):
        assert multiclass(logits, target) == 0
    assert dice_loss(logits, target, aggregate="batch", reduction="none").shape == (1, 3)


def test_many_classes(multiclass):
    """A thousand classes, of which most do not occur, and more labels than int8 holds."""
    logits, target = normal(1, 1000, 4, 4), labels(1, 4, 4, top=999)
    value = multiclass(logits, target)
    assert value.isfinite()
    assert gradient(multiclass, logits, target).isfinite().all()
    with pytest.raises(ValueError, match=r"target holds the label 1000 but logits with 1000"):
        multiclass(logits, with_value(target, 1000))


def test_single_pixels(loss):
    assert loss(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.long)) > 0


def test_inputs_are_left_alone(multiclass):
    weight = torch.rand(2, 8, 8)
    target = with_value(CLASSES, 255)
    inputs = (THREE.clone(), target.clone(), weight.clone())
    gradient(multiclass, THREE, target, ignore_index=255, pixel_weight=weight)
    for before, after in zip(inputs, (THREE, target, weight), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("soft", [False, True])
def test_memory_layout_does_not_matter(multiclass, soft):
    target = SOFT_THREE if soft else CLASSES
    weight = torch.rand(2, 8, 8)
    expected = multiclass(THREE, target, pixel_weight=weight)
    slope = gradient(multiclass, THREE, target, pixel_weight=weight)
    strided = torch.zeros(2, 3, 16, 16, dtype=torch.float64)[..., ::2, ::2].copy_(THREE)
    turned = THREE.transpose(-1, -2).contiguous().transpose(-1, -2)
    for logits in (THREE.contiguous(memory_format=torch.channels_last), strided, turned):
        y = target.transpose(-1, -2).contiguous().transpose(-1, -2)
        w = weight.mT.contiguous().mT
        assert not any(tensor.is_contiguous() for tensor in (logits, y, w))
        torch.testing.assert_close(multiclass(logits, y, pixel_weight=w), expected)
        torch.testing.assert_close(gradient(multiclass, logits, y, pixel_weight=w), slope)
    expanded = torch.rand(1, 1, 8).expand(2, 8, 8)
    torch.testing.assert_close(
        multiclass(THREE, target, pixel_weight=expanded),
        multiclass(THREE, target, pixel_weight=expanded.contiguous()),
    )


def test_expanded_logits_and_soft_targets(multiclass):
    logits = normal(1, 3, 1, 8).expand(2, 3, 8, 8)
    soft = logits.softmax(1)[:1, :, :1].expand(2, 3, 8, 8)
    torch.testing.assert_close(
        multiclass(logits, soft), multiclass(logits.contiguous(), soft.contiguous())
    )


def test_repeated_calls_agree_to_the_last_bit(multiclass):
    assert multiclass(THREE, CLASSES) == multiclass(THREE, CLASSES)
    assert torch.equal(gradient(multiclass, THREE, CLASSES), gradient(multiclass, THREE, CLASSES))


# ---------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_precision_of_the_result(multiclass, given, computed, reduction):
    """The logits decide; no target or weight of another precision changes that."""
    logits = THREE.to(given)
    for y in (CLASSES, SOFT_THREE.half(), SOFT_THREE.float(), SOFT_THREE):
        for dtype in (torch.float16, torch.float32, torch.float64):
            weight = torch.ones(2, 8, 8, dtype=dtype)
            value = multiclass(logits, y, pixel_weight=weight, reduction=reduction)
            assert value.dtype == computed
    value = multiclass(logits, CLASSES, reduction=reduction)
    torch.testing.assert_close(value, multiclass(logits.to(computed), CLASSES, reduction=reduction))
    assert gradient(multiclass, logits, CLASSES, reduction=reduction).dtype == given


def test_class_weights_do_not_change_the_precision():
    weights = torch.ones(3, dtype=torch.float64)
    for logits in (THREE.half(), THREE.float()):
        assert dice_loss(logits, CLASSES, class_weight=weights).dtype == torch.float32
        assert dice_loss(logits, CLASSES, absent="worst").dtype == torch.float32
    assert dice_loss(THREE, CLASSES, absent="worst").dtype == torch.float64
    assert dice_loss(THREE, CLASSES, class_weight=weights.half()).dtype == torch.float64


def test_the_default_dtype_does_not_matter(multiclass):
    before = torch.get_default_dtype()
    expected = multiclass(THREE.float(), CLASSES)
    try:
        torch.set_default_dtype(torch.float64)
        value = multiclass(THREE.float(), CLASSES)
    finally:
        torch.set_default_dtype(before)
    assert value.dtype == torch.float32
    assert value == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_loss_in_float32(multiclass, dtype):
    layer = torch.nn.Conv2d(3, 3, 1)
    with torch.autocast("cpu", dtype=dtype):
        logits = layer(normal(2, 3, 64, 64, dtype=torch.float32))
        value = multiclass(logits, labels(2, 64, 64, top=2))
        soft = multiclass(logits, logits.detach().float().softmax(1))
    assert logits.dtype == dtype
    assert value.dtype == soft.dtype == torch.float32
    outside = multiclass(logits.float(), labels(2, 64, 64, top=2))
    assert value.item() == pytest.approx(outside.item(), rel=1e-6)
    value.backward()
    assert layer.weight.grad.isfinite().all()
    double = normal(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=dtype):
        torch.testing.assert_close(multiclass(double, CLASSES), multiclass(double, CLASSES.long()))
        assert multiclass(double, CLASSES).dtype == torch.float64
    assert multiclass(double, CLASSES) == pytest.approx(multiclass(double, CLASSES).item())


@pytest.mark.parametrize("squared", [False, True])
def test_rounding_never_makes_dice_negative(squared):
    """A loss of 1e-8 is below what float32 can tell from 0, on either side."""
    for seed in range(16):
        target = labels(1, 64, 64, seed=seed)
        size = 9 + normal(1, 1, 64, 64, seed=seed, dtype=torch.float32).abs()
        value = dice_loss(size * (2 * target - 1), target, squared=squared)
        assert 0 <= value < 1e-3


def test_half_precision_sums_do_not_overflow():
    """65 536 ones are infinite in float16, and 1e-8 is nothing."""
    logits = torch.full((1, 1, 512, 512), 12.0, dtype=torch.float16)
    target = torch.ones(1, 512, 512, dtype=torch.uint8)
    for loss in ALL:
        assert loss(logits, target, reduction="sum").isfinite()
        assert loss(logits, target) == pytest.approx(loss(logits.float(), target).item(), abs=1e-7)


# ----------------------------------------------------------------------------------- extreme values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("target", [0, 1])
def test_extreme_logits(loss, dtype, target):
    y = torch.full((1, 16), target)
    for size in (1e2, 1e4):
        for sign in (1, -1):
            logits = torch.full((1, 1, 16), sign * size, dtype=dtype)
            right = (sign > 0) == bool(target)
            value = loss(logits, y)
            assert gradient(loss, logits, y).isfinite().all()
            if right:
                assert value == pytest.approx(0, abs=1e-30)
            elif loss is dice_loss:
                assert value == pytest.approx(16 / 17, abs=1e-6)
            else:
                assert value == pytest.approx(size, rel=1e-2 if dtype == torch.bfloat16 else 1e-4)


@pytest.mark.parametrize("level", [-1e4, -104.0, -95.0, -88.0, -80.0, -60.0, 0.0, 17.0, 90.0])
@pytest.mark.parametrize("label", [0, 1])
def test_a_scaled_loss_keeps_a_finite_gradient(loss, level, label):
    """Mixed precision multiplies a loss by 65 536 and more before it differentiates."""
    logits, target = torch.full((1, 1, 16), level), torch.full((1, 16), label)
    hard = [{"smooth": 0.0}, {"absent": "worst"}, {"absent": "worst", "squared": True}]
    for options in [{}, *hard] if loss is dice_loss else [{}]:
        for scale in (2.0**16, 2.0**24):
            slope = gradient(lambda z, y, s=scale, o=options: s * loss(z, y, **o), logits, target)
            assert slope.isfinite().all(), options


def test_one_confident_mistake_costs_its_logit():
    assert binary_cross_entropy(torch.full((1, 1, 1), 1e4), torch.zeros(1, 1).long()) == 1e4
    z = torch.tensor([[[1e4], [-1e4], [0.0]]])
    assert cross_entropy(z, torch.tensor([[1]])) == 2e4
    assert math.isclose(cross_entropy(z, torch.tensor([[2]])).item(), 1e4)


@pytest.mark.parametrize(("loss", "kind"), kinds(*ALL))
def test_the_gradient_is_the_same_on_the_way_to_a_second_one(loss, kind):
    """With ``create_graph=True`` a hand-written backward takes another path."""
    logits, target, named = flattened(kind)
    for options in OPTIONS[loss]:
        expected = gradient(loss, logits, target, **named, **options)
        inputs = logits.clone().requires_grad_()
        value = loss(inputs, target, **named, **options)
        (slope,) = torch.autograd.grad(value, inputs, create_graph=True)
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-16)


def test_a_second_derivative_exists(multiclass):
    logits = THREE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(multiclass(logits, CLASSES), logits, create_graph=True)
    slope.square().sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() > 0


# --------------------------------------------------------------------------------------- torch.func


@pytest.mark.parametrize(("loss", "kind"), kinds(*ALL))
def test_functional_transforms_agree_with_autograd(loss, kind):
    logits, target, named = flattened(kind)
    spoilt = target.clone()
    spoilt[..., 3] = 255
    weight = torch.rand(2, 12, dtype=torch.float64)
    for y, extra in (
        (target, {}),
        (spoilt, {"ignore_index": 255}),
        (target, {"pixel_weight": weight}),
    ):
        slope = torch.func.grad(lambda z, y=y, e=extra: loss(z, y, **named, **e))(logits)
        torch.testing.assert_close(slope, gradient(loss, logits, y, **named, **extra))
    batches = torch.stack([logits, 2 * logits])
    targets = torch.stack([target, target.flip(-1)])
    both = torch.func.vmap(lambda z, y: loss(z, y, **named))(batches, targets)
    one_by_one = [loss(z, y, **named) for z, y in zip(batches, targets, strict=True)]
    torch.testing.assert_close(both, torch.stack(one_by_one))
    only_targets = torch.func.vmap(lambda y: loss(logits, y, **named))(targets)
    torch.testing.assert_close(only_targets[0], loss(logits, target, **named))
    slopes = torch.func.vmap(torch.func.grad(lambda z, y: loss(z, y, **named)))(batches, targets)
    torch.testing.assert_close(slopes[1], gradient(loss, batches[1], targets[1], **named))
    confident = 25 * logits.sign()
    (far,) = torch.func.vmap(lambda z: loss(z, target, reduction="sum", **named))(confident[None])
    expected = loss(confident, target, reduction="sum", **named)
    torch.testing.assert_close(far, expected, rtol=1e-13, atol=1e-13)
    only_weights = torch.func.vmap(lambda w: loss(logits, target, pixel_weight=w, **named))(
        torch.stack([weight, 2 * weight])
    )
    if loss is not dice_loss:
        torch.testing.assert_close(only_weights[0], only_weights[1])


def test_hessian_vector_products_by_func(multiclass):
    logits, target, _ = flattened("multiclass")
    slope = torch.func.grad(lambda z: multiclass(z, target))

    def curvature(z):
        return (slope(z) * normal(2, 3, 12, seed=3)).sum()

    by_func = torch.func.grad(curvature)(logits)
    logits.requires_grad_()
    (first,) = torch.autograd.grad(multiclass(logits, target), logits, create_graph=True)
    (expected,) = torch.autograd.grad((first * normal(2, 3, 12, seed=3)).sum(), logits)
    torch.testing.assert_close(by_func, expected)


def test_a_mask_that_learns_has_the_gradient_of_a_soft_target():
    mask = SOFT_ONE.round().requires_grad_()
    found = {}
    for checks in (True, False):  # only where values are read are masks told from soft targets
        before = set_value_checks(checks)
        try:
            (found[checks],) = torch.autograd.grad(dice_loss(ONE, mask), mask)
        finally:
            set_value_checks(before)
    torch.testing.assert_close(found[True], found[False])
    assert found[True].any()
