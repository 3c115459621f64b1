"""Other people's implementations on the same tensors: equal, or known why not."""

from __future__ import annotations

import kornia
import monai
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kornia.losses import dice_loss as kornia_dice
from monai.data import MetaTensor
from monai.losses import DiceLoss as MonaiDice
from samples import BINARY, CLASSES, MASKS, ONE, SOFT_ONE, SOFT_THREE, THREE, gradient, with_value
from sklearn.metrics import f1_score, log_loss

from seglosses_nb import LOSSES, binary_cross_entropy, cross_entropy, dice_loss


def same(ours, theirs, logits, *targets, rtol=1e-12):
    """Compare value and gradient of two losses that take the same arguments."""
    torch.testing.assert_close(ours(logits, *targets), theirs(logits, *targets), rtol=rtol, atol=0)
    torch.testing.assert_close(
        gradient(ours, logits, *targets), gradient(theirs, logits, *targets), rtol=1e-9, atol=1e-14
    )


REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


# ------------------------------------------------------------------------------------------ torch


@REDUCTIONS
@pytest.mark.parametrize("target", [BINARY.double().unsqueeze(1), SOFT_ONE], ids=["hard", "soft"])
def test_binary_cross_entropy_equals_torch(target, reduction):
    def theirs(z, y):
        loss = F.binary_cross_entropy_with_logits(z, y, reduction=reduction)
        return loss.squeeze(1) if reduction == "none" else loss

    same(lambda z, y: binary_cross_entropy(z, y, reduction=reduction), theirs, ONE, target)


@REDUCTIONS
@pytest.mark.parametrize("target", [MASKS.double(), THREE.sigmoid()], ids=["hard", "soft"])
def test_multilabel_binary_cross_entropy_equals_torch(target, reduction):
    same(
        lambda z, y: binary_cross_entropy(z, y, multilabel=True, reduction=reduction),
        lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction=reduction),
        THREE,
        target,
    )


@REDUCTIONS
@pytest.mark.parametrize("target", [CLASSES, SOFT_THREE], ids=["labels", "soft"])
def test_cross_entropy_equals_torch(target, reduction):
    same(
        lambda z, y: cross_entropy(z, y, reduction=reduction),
        lambda z, y: F.cross_entropy(z, y, reduction=reduction),
        THREE,
        target,
    )


@REDUCTIONS
@pytest.mark.parametrize("ignored", [255, -100, 1])
def test_ignored_pixels_of_cross_entropy_equal_torch(reduction, ignored):
    target = with_value(CLASSES, ignored)
    same(
        lambda z, y: cross_entropy(z, y, ignore_index=ignored, reduction=reduction),
        lambda z, y: F.cross_entropy(z, y, ignore_index=ignored, reduction=reduction),
        THREE,
        target,
    )


def test_all_ignored_is_where_we_leave_torch():
    target = torch.full_like(CLASSES, 255)
    assert F.cross_entropy(THREE, target, ignore_index=255).isnan()
    assert cross_entropy(THREE, target, ignore_index=255) == 0


def test_one_channel_is_where_we_leave_torch():
    """A softmax over one channel is 1: torch's loss is 0 whatever the prediction."""
    assert F.cross_entropy(ONE, torch.zeros_like(BINARY)) == 0
    assert cross_entropy(ONE, BINARY) == binary_cross_entropy(ONE, BINARY)


def test_the_module_on_probabilities_is_clamped_and_ours_is_not():
    probability = torch.zeros(1, 1, 1, dtype=torch.float64)
    assert F.binary_cross_entropy(probability, torch.ones_like(probability)) == 100
    assert binary_cross_entropy(probability - 1e4, torch.ones(1, 1, dtype=torch.long)) == 1e4


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_negative_logits_of_a_torch_distribution(kind):
    if kind == "binary":
        theirs = -torch.distributions.Bernoulli(logits=ONE.squeeze(1)).log_prob(BINARY.double())
        ours = binary_cross_entropy(ONE, BINARY, reduction="none")
    else:
        theirs = -torch.distributions.Categorical(logits=THREE.movedim(1, -1)).log_prob(CLASSES)
        ours = cross_entropy(THREE, CLASSES, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)


# ----------------------------------------------------------------------------------- scikit-learn


def test_cross_entropy_equals_the_log_loss_of_scikit_learn():
    p = THREE.softmax(1).movedim(1, -1).reshape(-1, 3).numpy()
    expected = log_loss(CLASSES.flatten().numpy(), p)
    assert cross_entropy(THREE, CLASSES).item() == pytest.approx(expected, rel=1e-12)
    weight = torch.rand(CLASSES.shape, dtype=torch.float64)
    expected = log_loss(CLASSES.flatten().numpy(), p, sample_weight=weight.flatten().numpy())
    found = cross_entropy(THREE, CLASSES, pixel_weight=weight)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    expected = log_loss(BINARY.flatten().numpy(), ONE.sigmoid().flatten().numpy())
    assert binary_cross_entropy(ONE, BINARY).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("squared", [False, True])
def test_dice_of_a_hard_prediction_is_one_minus_the_f1_score(squared):
    predicted = 1e3 * ONE.sign()
    named = {"squared": squared, "smooth": 0.0}
    for n in range(2):
        score = f1_score(BINARY[n].flatten(), (ONE[n] > 0).flatten())
        value = dice_loss(predicted[n : n + 1], BINARY[n : n + 1], **named)
        assert value.item() == pytest.approx(1 - score, rel=1e-12)
    score = f1_score(BINARY.flatten(), (ONE > 0).flatten())
    value = dice_loss(predicted, BINARY, aggregate="batch", **named)
    assert value.item() == pytest.approx(1 - score, rel=1e-12)
    classes = THREE.argmax(1)
    one_hot = 1e3 * (2.0 * F.one_hot(classes, 3).movedim(-1, 1) - 1).double()
    scores = f1_score(CLASSES.flatten(), classes.flatten(), average=None)
    values = dice_loss(one_hot, CLASSES, aggregate="batch", reduction="none", **named)
    np.testing.assert_allclose(values[0].numpy(), 1 - scores, rtol=1e-12)


# ------------------------------------------------------------------------------------------ MONAI
# It adds smooth_nr to 2 TP and smooth_dr to the denominator: our smooth is both.


@pytest.mark.parametrize("smooth", [1.0, 1e-5, 0.3])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("background", [True, False])
def test_dice_equals_monai_on_classes(smooth, squared, batch, background):
    theirs = MonaiDice(
        softmax=True,
        include_background=background,
        squared_pred=squared,
        batch=batch,
        smooth_nr=smooth,
        smooth_dr=smooth,
    )
    same(
        lambda z, y: dice_loss(
            z,
            y,
            smooth=smooth,
            squared=squared,
            aggregate="batch" if batch else "image",
            include_background=background,
        ),
        lambda z, y: theirs(z, F.one_hot(y).movedim(-1, 1).double()),  # its own is float32
        THREE,
        CLASSES,
        rtol=1e-10,
    )


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@REDUCTIONS
def test_dice_equals_monai_on_masks(squared, batch, reduction):
    theirs = MonaiDice(
        sigmoid=True,
        squared_pred=squared,
        batch=batch,
        smooth_nr=1,
        smooth_dr=1,
        reduction=reduction,
    )
    named = {
        "squared": squared,
        "aggregate": "batch" if batch else "image",
        "reduction": reduction,
    }

    def monai_masks(z, y):
        loss = theirs(z, y.double())
        return loss.flatten(1) if reduction == "none" and not batch else loss.squeeze()

    for logits, target in ((ONE, BINARY.unsqueeze(1)), (THREE, MASKS)):

        def ours(z, y):
            loss = dice_loss(z, y, multilabel=z.shape[1] > 1, **named)
            return loss.squeeze() if batch else loss

        same(ours, monai_masks, logits, target, rtol=1e-10)


def test_dice_equals_monai_in_three_dimensions_and_on_an_absent_class():
    logits, target = THREE.reshape(2, 3, 4, 4, 4), CLASSES.reshape(2, 4, 4, 4).clamp_max(1)
    theirs = MonaiDice(softmax=True, to_onehot_y=True, smooth_nr=1, smooth_dr=1)
    same(dice_loss, lambda z, y: theirs(z, y.unsqueeze(1)), logits, target, rtol=1e-10)


def test_ignored_pixels_of_dice_equal_monai():
    target = with_value(CLASSES, 255)
    theirs = MonaiDice(softmax=True, to_onehot_y=True, smooth_nr=1, smooth_dr=1, ignore_index=255)
    same(
        lambda z, y: dice_loss(z, y, ignore_index=255),
        lambda z, y: theirs(z, y.unsqueeze(1)),
        THREE,
        target,
        rtol=1e-10,
    )


def test_soft_targets_of_dice_equal_monai_where_it_is_told_so():
    """The product p y is lowest at a hard prediction; soft_label=True and we use min(p, y)."""
    named = {"sigmoid": True, "smooth_nr": 1, "smooth_dr": 1}
    same(dice_loss, MonaiDice(soft_label=True, **named), ONE, SOFT_ONE.flip(0), rtol=1e-10)
    half = torch.full((1, 1, 4), 0.5, dtype=torch.float64)
    at = {p: torch.full((1, 1, 4), p, dtype=torch.float64).logit() for p in (0.25, 0.5, 0.999)}
    product = {p: MonaiDice(**named)(z, half).item() for p, z in at.items()}
    ours = {p: dice_loss(z, half).item() for p, z in at.items()}
    assert min(product, key=product.get) == 0.999
    assert min(ours, key=ours.get) == 0.5
    assert ours[0.5] == 0


def test_class_weights_are_where_we_leave_monai():
    """It multiplies and divides by the number of classes; we divide by the sum of the weights."""
    weight = [1.0, 2.0, 5.0]
    theirs = MonaiDice(softmax=True, to_onehot_y=True, smooth_nr=1, smooth_dr=1, weight=weight)
    ours = dice_loss(THREE, CLASSES, class_weight=weight)
    torch.testing.assert_close(ours * sum(weight) / 3, theirs(THREE, CLASSES.unsqueeze(1)))


def test_an_empty_target_is_where_we_leave_monai():
    """Its default smoothing of 1e-5 leaves next to no gradient to a pixel, ours of 1 does."""
    logits = torch.full((1, 1, 64, 64), 0.5, dtype=torch.float64)
    empty = torch.zeros(1, 64, 64, dtype=torch.long)
    monai_default = MonaiDice(sigmoid=True)
    theirs = gradient(lambda z, y: monai_default(z, y.unsqueeze(1)), logits, empty).max()
    ours = gradient(dice_loss, logits, empty).max()
    assert ours > 1e4 * theirs > 0


@pytest.mark.parametrize("loss", [binary_cross_entropy, cross_entropy, dice_loss])
def test_the_tensors_of_a_monai_pipeline_are_tensors(loss):
    """Its MetaTensor is a subclass: the same values, gradients and checks."""
    mask = MetaTensor(BINARY.unsqueeze(1))
    same(loss, lambda z, y: loss(z, y.as_tensor()).as_subclass(MetaTensor), ONE, mask)
    assert loss(MetaTensor(ONE), mask) == loss(ONE, BINARY)
    with pytest.raises(ValueError, match="target holds the label 2"):
        loss(ONE, MetaTensor(2 * BINARY))


# ----------------------------------------------------------------------------------------- kornia
# One image at a time: no smoothing above, eps below, and absent classes leave the mean.


def kornia_macro(z, y, **named):
    """Return kornia's loss per class, with the smallest eps."""
    return kornia_dice(z, y, average="macro", eps=0.0, **named)


def test_dice_equals_kornia_without_smoothing():
    assert all((CLASSES[n] == c).any() for n in range(2) for c in range(3))
    same(
        lambda z, y: dice_loss(z, y, smooth=0.0, absent="skip"),
        kornia_macro,
        THREE,
        CLASSES,
        rtol=1e-10,
    )


def test_ignored_pixels_of_dice_equal_kornia():
    target = with_value(CLASSES, -100)
    same(
        lambda z, y: dice_loss(z, y, smooth=0.0, absent="skip", ignore_index=-100),
        kornia_macro,
        THREE,
        target,
        rtol=1e-10,
    )


def test_kornia_averages_over_classes_first_and_we_over_all_regions():
    """They part where an image lacks a class: image by image they agree."""
    target = CLASSES.clone()
    target[0] = target[0].clamp_max(1)
    each = [kornia_macro(THREE[n : n + 1], target[n : n + 1]) for n in range(2)]
    ours = [
        dice_loss(THREE[n : n + 1], target[n : n + 1], smooth=0.0, absent="skip") for n in range(2)
    ]
    torch.testing.assert_close(ours, each)
    torch.testing.assert_close(kornia_macro(THREE, target), torch.stack(each).mean())
    together = dice_loss(THREE, target, smooth=0.0, absent="skip")
    torch.testing.assert_close(together, (2 * ours[0] + 3 * ours[1]) / 5)


def test_the_eps_of_kornia_stands_below_only():
    """So that its loss of an empty target is 1 where ours asks what was predicted there."""
    logits = torch.cat([-ONE, ONE], 1)
    p, y = logits.softmax(1)[:1, 1], BINARY[:1]
    eps = 7.0
    expected = 1 - 2 * (p * y).sum() / (p.sum() + y.sum() + eps)
    weight = torch.tensor([0.0, 1.0], dtype=torch.float64)
    found = kornia_dice(logits[:1], y, average="macro", eps=eps, weight=weight)
    torch.testing.assert_close(found, expected)
    ours = dice_loss(logits[:1], y, smooth=eps, class_weight=[0, 1])
    torch.testing.assert_close(ours, (p + y - 2 * p * y).sum() / (p.sum() + y.sum() + eps))
    assert found > ours


def test_the_default_of_kornia_is_another_loss():
    """Summed over exclusive classes first, Dice is one minus the mean probability of the truth."""
    micro = kornia_dice(THREE, CLASSES)
    truth = THREE.softmax(1).gather(1, CLASSES.unsqueeze(1))
    torch.testing.assert_close(micro, 1 - truth.mean(), rtol=1e-6, atol=0)
    assert abs(micro - dice_loss(THREE, CLASSES)) > 1e-3


def test_a_loss_has_the_stated_name_in_other_libraries():
    homes = {"MONAI": monai.losses, "kornia": kornia.losses, "torch": torch.nn}
    for info in LOSSES.values():
        for library, name in info.aliases.items():
            assert hasattr(homes[library], name), f"{info.name}: no {name} in {library}"
