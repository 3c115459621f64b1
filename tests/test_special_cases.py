"""Values worked out by hand, and the identities that the registry states.

The four pixels of case A and the three classes of case B stand in every chapter: their values were
computed once, outside this project's code, and are the same to every digit given.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from samples import EDGES, gradient, labels, normal, sample
from torch import Tensor

from seglosses_nb import LOSSES, binary_cross_entropy, class_weights, cross_entropy, dice_loss

# Case A: a 2 x 2 image, TP = 1.5, FP = .3, FN = .5, TN = 1.7
A = torch.tensor([[[[0.9, 0.6], [0.2, 0.1]]]], dtype=torch.float64).logit()
A_TARGET = torch.tensor([[[1, 1], [0, 0]]])
# Case B: three classes, 2 x 2
B_PROBABILITIES = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]]
B = torch.tensor(B_PROBABILITIES, dtype=torch.float64).log().T.reshape(1, 3, 2, 2)
B_TARGET = torch.tensor([[[0, 1], [2, 1]]])


def digits(value: Tensor | float) -> object:
    """Compare to the ten digits that are printed."""
    return pytest.approx(value, abs=5.1e-11)


# ------------------------------------------------------------------------------- by hand, case A


def test_soft_counts_of_case_a():
    p, y = A.sigmoid().squeeze(1), A_TARGET
    counts = [(p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum(), ((1 - p) * (1 - y)).sum()]
    assert [c.item() for c in counts] == pytest.approx([1.5, 0.3, 0.5, 1.7])


def test_logits_of_case_a():
    expected = [2.19722458, 0.40546511, -1.38629436, -2.19722458]
    assert A.flatten().tolist() == pytest.approx(expected, abs=5e-9)


def test_binary_cross_entropy_of_case_a():
    values = binary_cross_entropy(A, A_TARGET, reduction="none").flatten().tolist()
    assert values == pytest.approx([0.10536052, 0.51082562, 0.22314355, 0.10536052], abs=5e-9)
    assert binary_cross_entropy(A, A_TARGET).item() == digits(0.2361725516)


def test_gradient_of_binary_cross_entropy_of_case_a():
    slope = gradient(binary_cross_entropy, A, A_TARGET).flatten().tolist()
    assert slope == pytest.approx([-0.1 / 4, -0.4 / 4, 0.2 / 4, 0.1 / 4], abs=1e-15)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"smooth": 0.0}, 4 / 19),
        ({"smooth": 0.0}, 0.2105263158),
        ({"smooth": 1.0}, 0.1666666667),
        ({}, 0.1666666667),
        ({"smooth": 0.0, "squared": True}, 0.0683229814),
        ({"smooth": 1.0, "squared": True}, 0.0521327014),
    ],
)
def test_dice_of_case_a(named, expected):
    assert dice_loss(A, A_TARGET, **named).item() == digits(expected)


def test_gradient_of_dice_of_case_a():
    """L = E / D with E = .8 and D = 4.8: dL/dp is (1 - L)/D on background, -(1 + L)/D inside."""
    outside, inside = (1 - 1 / 6) / 4.8, -(1 + 1 / 6) / 4.8
    expected = [inside * 0.9 * 0.1, inside * 0.6 * 0.4, outside * 0.2 * 0.8, outside * 0.1 * 0.9]
    assert gradient(dice_loss, A, A_TARGET).flatten().tolist() == pytest.approx(expected)


def test_weighted_binary_cross_entropy_of_case_a():
    """A weight of 2 on the foreground, divided by the number of pixels: torch's pos_weight."""
    weight = 1 + A_TARGET.double()
    total = binary_cross_entropy(A, A_TARGET, pixel_weight=weight, reduction="sum")
    assert total.item() / 4 == digits(0.3902190865)


# ------------------------------------------------------------------------------- by hand, case B


def test_cross_entropy_of_case_b():
    values = cross_entropy(B, B_TARGET, reduction="none").flatten().tolist()
    assert values == pytest.approx([0.35667494, 0.22314355, 0.91629073, 1.38629436], abs=5e-9)
    assert cross_entropy(B, B_TARGET).item() == digits(0.7206008971)


def test_weighted_cross_entropy_of_case_b():
    weight = class_weights(B_TARGET, 3, dtype=torch.float64)
    assert weight.tolist() == pytest.approx([4 / 3, 2 / 3, 4 / 3])
    balanced = cross_entropy(B, B_TARGET, pixel_weight=weight[B_TARGET])
    assert balanced.item() == digits(0.6925615440)
    chosen = torch.tensor([1.0, 2.0, 4.0])[B_TARGET]
    assert cross_entropy(B, B_TARGET, pixel_weight=chosen).item() == digits(0.8045237440)
    total = cross_entropy(B, B_TARGET, pixel_weight=chosen, reduction="sum")
    assert total.item() / 4 == digits(1.8101784241)


def test_dice_of_case_b():
    values = dice_loss(B, B_TARGET, smooth=0.0, reduction="none").flatten().tolist()
    assert values == pytest.approx([0.46153846, 0.40845070, 0.56756757], abs=5e-9)
    assert dice_loss(B, B_TARGET, smooth=0.0).item() == digits(0.4791855778)
    assert dice_loss(B, B_TARGET, smooth=1.0).item() == digits(0.3401452349)
    without = dice_loss(B, B_TARGET, smooth=0.0, include_background=False)
    assert without.item() == digits(0.4880091359)


# --------------------------------------------------------------------------- small numbers by hand


@pytest.mark.parametrize("classes", [2, 3, 19])
def test_equal_logits_cost_the_logarithm_of_the_classes(classes):
    logits = torch.full((2, classes, 5), 7.0, dtype=torch.float64)
    target = labels(2, 5, top=classes - 1)
    assert cross_entropy(logits, target).item() == pytest.approx(math.log(classes), rel=1e-14)
    zero = torch.zeros(2, 1, 5, dtype=torch.float64)
    found = binary_cross_entropy(zero, target.clamp_max(1)).item()
    assert found == pytest.approx(math.log(2), rel=1e-14)


@pytest.mark.parametrize("smooth", [0.0, 1e-5, 1.0, 50.0])
def test_dice_of_an_empty_target(smooth):
    """p = .5 on 4 pixels of which none is foreground: FP / (FP + s) = 2 / (2 + s)."""
    logits, target = torch.zeros(1, 1, 4, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.long)
    value = dice_loss(logits, target, smooth=smooth)
    assert value.item() == pytest.approx(2 / (2 + smooth), rel=1e-14)
    slope = gradient(dice_loss, logits, target, smooth=smooth)  # s / (FP + s)^2 * p (1 - p)
    assert slope.flatten().tolist() == pytest.approx([0.25 * smooth / (2 + smooth) ** 2] * 4)


def test_dice_of_a_full_target_and_an_empty_prediction():
    target = torch.ones(1, 4, dtype=torch.long)
    logits = torch.full((1, 1, 4), -1e3, dtype=torch.float64)
    assert dice_loss(logits, target, smooth=0.0) == 1
    assert dice_loss(logits, target).item() == pytest.approx(4 / 5)
    assert dice_loss(-logits, target) == 0


def test_dice_of_one_image_and_another():
    """Per image the mean of 2/4 and 1/1, over the batch 3/5: the small object counts less."""
    logits = torch.tensor([[[9e2, 9e2, 9e2, -9e2]], [[-9e2] * 4]])
    target = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0]])
    assert dice_loss(logits, target, smooth=0.0) == 0.75
    batch = dice_loss(logits, target, smooth=0.0, aggregate="batch")
    assert batch.item() == pytest.approx(0.6)


def test_micro_dice_over_exclusive_classes_is_not_this_loss():
    """Summed over all classes before the ratio, Dice is 1 - mean p_t: on case B .4625."""
    p = B.softmax(1)
    truth = p.gather(1, B_TARGET.unsqueeze(1))
    assert 1 - truth.mean().item() == digits(0.4625)
    assert dice_loss(B, B_TARGET, smooth=0.0).item() != digits(0.4625)


def test_dice_and_jaccard_of_the_same_counts():
    """Without smoothing J = 2 D / (1 + D), and case A has J = .8 / 2.3."""
    dice = dice_loss(A, A_TARGET, smooth=0.0).item()
    assert 2 * dice / (1 + dice) == digits(0.3478260870)


# ------------------------------------------------------------------------------- the registry's own

CASES = [
    pytest.param(name, case, id=f"{name}: {case.statement}")
    for name, info in LOSSES.items()
    for case in info.special_cases
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_stated_identity_holds_in_value_and_gradient(name, case):
    for edge, seed in itertools.product(EDGES, range(3)):
        logits, target, named = sample(case.kind, edge, seed=seed)
        assert not named or case.kind == "multilabel"
        left, right = case.left(logits, target), case.right(logits, target)
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(
            gradient(case.left, logits, target),
            gradient(case.right, logits, target),
            rtol=1e-9,
            atol=1e-14,
        )


@pytest.mark.parametrize(("name", "case"), CASES)
def test_stated_identity_says_something(name, case):
    """Its two sides are computed from what they are given, and it leads to a loss that exists."""
    logits, target, _ = sample(case.kind)
    other, _, _ = sample(case.kind, seed=5)
    assert case.left(logits, target) != case.left(other, target)
    assert case.right(logits, target) != case.right(other, target)
    assert case.other is None or case.other in LOSSES
    assert case.other != name
    assert case.kind in LOSSES[name].targets


def test_every_loss_states_an_identity_that_runs():
    assert all(info.special_cases for info in LOSSES.values())


# ----------------------------------------------------------------------- identities of the formulas


def test_two_classes_are_one_question():
    z, y = normal(2, 2, 7), labels(2, 7)
    torch.testing.assert_close(cross_entropy(z, y), binary_cross_entropy(z[:, 1:] - z[:, :1], y))


@pytest.mark.parametrize("squared", [False, True])
def test_the_foreground_of_two_classes_is_the_binary_loss(squared):
    z, y = normal(2, 2, 7), labels(2, 7)
    torch.testing.assert_close(
        dice_loss(z, y, include_background=False, squared=squared),
        dice_loss(z[:, 1:] - z[:, :1], y, squared=squared),
    )


def test_a_constant_added_to_all_logits_changes_nothing():
    z, y = normal(2, 3, 7), labels(2, 7, top=2)
    shift = normal(2, 1, 7, seed=9)
    for loss in (cross_entropy, dice_loss):
        torch.testing.assert_close(loss(z + shift, y), loss(z, y))


def test_squares_make_no_difference_to_a_hard_prediction():
    z, y = 1e3 * normal(2, 1, 40).sign(), labels(2, 40)
    torch.testing.assert_close(dice_loss(z, y, squared=True), dice_loss(z, y))


def test_the_squared_form_is_a_squared_distance_over_a_size():
    z, y = normal(1, 1, 9), labels(1, 9)
    p = z.sigmoid().squeeze()
    expected = (p - y).square().sum() / (p.square().sum() + y.square().sum())
    found = dice_loss(z, y, smooth=0.0, squared=True)
    torch.testing.assert_close(found, expected)
    vnet = 1 - 2 * (p * y[0]).sum() / (p.square().sum() + y.square().sum())
    torch.testing.assert_close(found, vnet)


def test_the_gradient_of_cross_entropy_is_the_error():
    z, y = normal(2, 3, 7), labels(2, 7, top=2)
    one_hot = torch.nn.functional.one_hot(y, 3).movedim(-1, 1)
    expected = (z.softmax(1) - one_hot) / y.numel()
    torch.testing.assert_close(gradient(cross_entropy, z, y), expected)


def test_the_entropy_is_the_minimum_for_a_soft_target():
    y = torch.tensor([[[0.25]], [[0.5]]], dtype=torch.float64)
    entropy = -(y * y.log() + (1 - y) * (1 - y).log())
    values = binary_cross_entropy(y.logit(), y, reduction="none")
    torch.testing.assert_close(values, entropy.squeeze(1))
