"""Class weights: scikit-learn's where it has an answer, and a documented one where it has none."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import gradient, labels, normal
from sklearn.utils.class_weight import compute_class_weight

from seglosses_nb import (
    class_counts,
    class_weights,
    cross_entropy,
    dice_loss,
    pixel_weights,
    weights_from_counts,
)

SCHEMES = ("balanced", "inverse_frequency", "median_frequency", "effective_number")

# 8 pixels of class 0, 4 of class 1, 2 of class 2, 2 of class 3
KNOWN = torch.tensor([0] * 8 + [1] * 4 + [2] * 2 + [3] * 2)
THREE_OF_FOUR = torch.tensor([0] * 6 + [1] * 3 + [3] * 1)


@st.composite
def whole_targets(draw) -> tuple[list[int], int]:
    """Draw labels in which every class occurs, and the number of classes."""
    classes = draw(st.integers(1, 6))
    more = draw(st.lists(st.integers(0, classes - 1), max_size=60))
    return draw(st.permutations([*range(classes), *more])), classes


@settings(derandomize=True, deadline=None, max_examples=100)
@given(whole_targets())
def test_balanced_equals_scikit_learn_where_all_classes_occur(drawn):
    target, classes = drawn
    expected = compute_class_weight("balanced", classes=np.arange(classes), y=np.array(target))
    found = class_weights(torch.tensor(target), classes, dtype=torch.float64)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_balanced_equals_scikit_learn_for_the_classes_that_occur(target):
    """Scikit-learn has no entry for a class that it does not see; ours has, and says so."""
    present = np.unique(target)
    expected = compute_class_weight("balanced", classes=present, y=np.array(target))
    if len(present) == 5:
        found = class_weights(torch.tensor(target), 5, dtype=torch.float64)
    else:
        with pytest.warns(UserWarning, match="does not occur"):
            found = class_weights(torch.tensor(target), 5, dtype=torch.float64)
    np.testing.assert_allclose(found.numpy()[present], expected, rtol=1e-14)
    assert set(np.delete(found.numpy(), present)) <= {0.0}


def test_scikit_learn_refuses_a_class_that_does_not_occur():
    """Why ours exists: C classes need C weights, in every batch."""
    with pytest.raises(ValueError, match="classes should include all valid labels"):
        compute_class_weight("balanced", classes=np.arange(2), y=THREE_OF_FOUR.numpy())
    with pytest.raises(ValueError, match="class"):
        compute_class_weight("balanced", classes=np.array([0, 2]), y=np.array([0, 0]))


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("balanced", [16 / (4 * 8), 16 / (4 * 4), 16 / (4 * 2), 16 / (4 * 2)]),
        ("inverse_frequency", [2.0, 4.0, 8.0, 8.0]),
        ("median_frequency", [3 / 8, 3 / 4, 3 / 2, 3 / 2]),  # the median of 8, 4, 2, 2 is 3
    ],
)
def test_values_by_hand(scheme, expected):
    found = class_weights(KNOWN, 4, scheme, dtype=torch.float64)
    assert found.tolist() == pytest.approx(expected, rel=1e-14)


def test_effective_number_by_hand():
    """beta = 1/2: E_n = (1 - 2^-n) / (1 - 1/2), and the weights 1/E_n are scaled to a mean of 1."""
    effective = [2 * (1 - 2.0**-n) for n in (8, 4, 2, 2)]
    raw = np.array([1 / e for e in effective])
    found = class_weights(KNOWN, 4, "effective_number", beta=0.5, dtype=torch.float64)
    np.testing.assert_allclose(found.numpy(), raw / raw.mean(), rtol=1e-14)


def test_effective_number_at_its_ends():
    """beta = 0: every class counts the same; beta -> 1: the inverse frequency."""
    assert class_weights(KNOWN, 4, "effective_number", beta=0).tolist() == [1.0] * 4
    inverse = class_weights(KNOWN, 4, "inverse_frequency", dtype=torch.float64)
    near = class_weights(KNOWN, 4, "effective_number", beta=1 - 1e-9, dtype=torch.float64)
    torch.testing.assert_close(near, inverse / inverse.mean(), rtol=1e-6, atol=0)


def test_effective_number_of_many_pixels_is_finite():
    counts = torch.zeros(3_000_000, dtype=torch.uint8)
    counts[:10] = 1
    found = class_weights(counts, 2, "effective_number", beta=0.999999, dtype=torch.float64)
    effective = [(1 - 0.999999**n) / (1 - 0.999999) for n in (2_999_990, 10)]
    expected = np.array([1 / e for e in effective])
    np.testing.assert_allclose(found.numpy(), expected / expected.mean(), rtol=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_rarer_classes_weigh_more(scheme):
    common, less, rare, as_rare = class_weights(KNOWN, 4, scheme).tolist()
    assert common < less < rare == as_rare


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_the_shares_matter(scheme):
    """Twice the same pixels: the same weights, except for the effective number, which counts."""
    once = class_weights(KNOWN, 4, scheme)
    twice = class_weights(KNOWN.repeat(2), 4, scheme)
    if scheme == "effective_number":
        assert once[0] < 1
        assert twice.mean() == pytest.approx(1)
    else:
        assert torch.equal(once, twice)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("balanced", [10 / (3 * 6), 10 / (3 * 3), 0, 10 / 3]),  # K = 3 classes occur
        ("inverse_frequency", [10 / 6, 10 / 3, 0, 10]),
        ("median_frequency", [3 / 6, 3 / 3, 0, 3]),
    ],
)
def test_a_class_that_does_not_occur_is_warned_about(scheme, expected):
    with pytest.warns(UserWarning, match=r"class \[2\] does not occur in target and gets weight 0"):
        found = class_weights(THREE_OF_FOUR, 4, scheme, dtype=torch.float64)
    assert found.tolist() == pytest.approx(expected, rel=1e-14)


def test_the_warning_points_at_the_caller_and_names_every_class():
    with pytest.warns(UserWarning, match=r"class \[0, 2\].*absent=") as caught:
        class_weights(torch.tensor([1, 1]), 3)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_weight_of_an_absent_class_can_be_chosen(scheme):
    with pytest.warns(UserWarning, match="gets weight 2.5"):
        found = class_weights(THREE_OF_FOUR, 4, scheme, absent=2.5)
    with pytest.warns(UserWarning, match="gets weight 0"):
        without = class_weights(THREE_OF_FOUR, 4, scheme)
    assert found[2] == 2.5
    assert torch.equal(found[[0, 1, 3]], without[[0, 1, 3]])
    assert found.isfinite().all()


def test_ignored_pixels_are_not_counted():
    void = torch.cat([KNOWN, torch.full((100,), 255)])
    for scheme in SCHEMES:
        found = class_weights(void, 4, scheme, ignore_index=255)
        assert torch.equal(found, class_weights(KNOWN, 4, scheme))
    with pytest.warns(UserWarning, match=r"class \[0\]"):
        found = class_weights(KNOWN, 4, ignore_index=0)
    assert found.tolist() == pytest.approx([0, 8 / (3 * 4), 8 / (3 * 2), 8 / (3 * 2)])


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32],
)
def test_any_integer_dtype_and_any_shape(dtype):
    shaped = KNOWN.reshape(2, 2, 4).to(dtype)
    assert class_counts(shaped, 4).tolist() == [8, 4, 2, 2]
    assert class_counts(shaped.mT, 4).tolist() == [8, 4, 2, 2]
    assert torch.equal(class_weights(shaped, 4), class_weights(KNOWN, 4))


@pytest.mark.parametrize("ignore_index", [-1, 256, 257, 511])
def test_an_ignored_label_beyond_the_dtype_ignores_nothing(ignore_index):
    target = KNOWN.to(torch.uint8)
    assert class_counts(target, 4, ignore_index=ignore_index).tolist() == [8, 4, 2, 2]


def test_counts_of_masks():
    mask = torch.tensor([[True, False], [False, False]])
    assert class_counts(mask, 2).tolist() == [3, 1]
    assert class_counts(mask, 2).dtype == torch.int64
    assert class_weights(mask, 2).tolist() == pytest.approx([4 / 6, 2])
    assert class_counts(torch.zeros(0, dtype=torch.long), 3).tolist() == [0, 0, 0]


def test_one_class():
    assert class_weights(torch.zeros(5, dtype=torch.long), 1).tolist() == [1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtype_of_the_result(dtype):
    assert class_weights(KNOWN, 4, dtype=dtype).dtype == dtype
    assert class_weights(KNOWN, 4).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: class_weights(KNOWN, 4, "sklearn"), ValueError, r"scheme.*'sklearn'.*'balanced'"),
        (lambda: class_weights(KNOWN, 4, None), ValueError, r"scheme.*None.*'balanced'"),
        (lambda: class_weights(KNOWN, 3), ValueError, r"target.*label 3.*\[0, 2\].*num_classes"),
        (lambda: class_weights(KNOWN - 1, 4), ValueError, r"target.*label -1.*ignore_index=-1"),
        (lambda: class_weights(255 * KNOWN, 4), ValueError, r"target.*label 765.*\[0, 3\]"),
        (lambda: class_weights(KNOWN, 0), ValueError, r"num_classes.*0.*>= 1"),
        (lambda: class_weights(KNOWN, 2.0), ValueError, r"num_classes.*2\.0.*integer"),
        (lambda: class_weights(KNOWN, True), ValueError, r"num_classes.*True.*integer"),
        (lambda: class_weights(KNOWN.float(), 4), TypeError, r"target.*float32.*integer.*argmax"),
        (lambda: class_weights(KNOWN.numpy(), 4), TypeError, r"target.*ndarray.*tensor"),
        (lambda: class_weights([0, 1], 2), TypeError, r"target.*list.*tensor"),
        (lambda: class_weights(KNOWN, 4, absent=-1.0), ValueError, r"absent.*-1\.0.*>= 0"),
        (lambda: class_weights(KNOWN, 4, absent=float("nan")), ValueError, r"absent.*nan.*finite"),
        (lambda: class_weights(KNOWN, 4, absent=float("inf")), ValueError, r"absent.*inf.*finite"),
        (lambda: class_weights(KNOWN, 4, beta=1.0), ValueError, r"beta.*1\.0.*< 1"),
        (lambda: class_weights(KNOWN, 4, beta=-0.1), ValueError, r"beta.*-0\.1.*0 <="),
        (lambda: class_weights(KNOWN[:0], 4), ValueError, r"no pixel.*target"),
        (
            lambda: class_weights(torch.full((9,), 255), 2, ignore_index=255),
            ValueError,
            r"no pixel.*target.*ignored",
        ),
        (lambda: class_counts(KNOWN, 3), ValueError, r"class_counts: target.*label 3"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert re.search(message, str(caught.value)), caught.value
    assert re.match("class_(weights|counts): ", str(caught.value))


# ------------------------------------------------------------------------------------- with losses


@pytest.mark.parametrize("weights", [[1.0, 2.0, 4.0], [0.2, 0.0, 3.0]])
def test_a_pixel_weighted_cross_entropy_is_the_class_weighted_one_of_torch(weights):
    """Torch's 'mean' divides by the sum of the weights, and so does ours."""
    logits, target = normal(2, 3, 5, 6), labels(2, 5, 6, top=2)
    w = torch.tensor(weights, dtype=torch.float64)
    for reduction in ("mean", "sum", "none"):
        ours = cross_entropy(logits, target, pixel_weight=w[target], reduction=reduction)
        theirs = F.cross_entropy(logits, target, weight=w, reduction=reduction)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)
    ours = gradient(cross_entropy, logits, target, pixel_weight=w[target])
    theirs = gradient(lambda z, y: F.cross_entropy(z, y, weight=w), logits, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-15)


def test_balanced_weights_of_the_same_pixels_add_up_to_their_number():
    """So that here both conventions, dividing by the weights and by the pixels, coincide."""
    logits, target = normal(2, 3, 5, 6), labels(2, 5, 6, top=2)
    weight = class_weights(target, 3, dtype=torch.float64)[target]
    assert weight.sum().item() == pytest.approx(target.numel(), rel=1e-12)
    by_weights = cross_entropy(logits, target, pixel_weight=weight)
    by_count = cross_entropy(logits, target, pixel_weight=weight, reduction="sum") / target.numel()
    torch.testing.assert_close(by_weights, by_count)


def test_weights_go_into_region_losses_as_they_are():
    logits, target = normal(2, 3, 5, 6), labels(2, 5, 6, top=2)
    weight = class_weights(target, 3)
    none = dice_loss(logits, target, reduction="none")
    expected = (none * weight).sum() / (2 * weight.double().sum())
    torch.testing.assert_close(dice_loss(logits, target, class_weight=weight), expected)


def test_counts_of_many_images_give_the_weights_of_all_their_pixels():
    images = [torch.tensor([0, 1, 255]), torch.tensor([2, 1, 1])]
    counts = sum(class_counts(image, 3, ignore_index=255) for image in images)
    together = class_weights(torch.cat(images), 3, ignore_index=255)
    assert torch.equal(weights_from_counts(counts), together)


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        ([1, 2], TypeError, r"counts are list, wanted a tensor"),
        (torch.tensor([[1, 2]]), ValueError, r"shape \(1, 2\), wanted \(num_classes,\)"),
        (torch.tensor([1, -2]), ValueError, r"wanted .* numbers >= 0; class_counts counts labels"),
        (torch.tensor([1.0, float("inf")]), ValueError, "finite"),
        (torch.tensor([1.0, float("nan")]), ValueError, "finite"),
        (torch.tensor([0, 0]), ValueError, "no pixel to count"),
    ],
)
def test_counts_that_are_none(counts, error, message):
    with pytest.raises(error, match=message):
        weights_from_counts(counts)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_pixel_weights_are_those_of_torch(dtype):
    logits = torch.randn(2, 2, 5, dtype=torch.float64)
    labels = torch.randint(0, 2, (2, 5)).to(dtype)
    weights = torch.tensor([1.0, 20.0], dtype=torch.float64)
    ours = cross_entropy(logits, labels, pixel_weight=pixel_weights(labels, weights))
    theirs = F.cross_entropy(logits, labels.long(), weight=weights)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("void", [255, -100, 1])
def test_pixel_weights_are_0_where_ignored(void):
    labels = torch.tensor([0, 2, void])
    found = pixel_weights(labels, [1.0, 2.0, 3.0], ignore_index=void)
    assert found.tolist() == [1.0, 3.0, 0.0]


def test_a_label_without_weight():
    with pytest.raises(ValueError, match=r"label 255 but num_classes=2.*ignore_index=255"):
        pixel_weights(torch.tensor([0, 255]), [1.0, 2.0])
