"""Every loss equals its oracle, value and gradient, in every mode and at every edge."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
import torch
from oracles import GRADIENTS, ORACLES, numerical_gradient
from samples import VARIANTS, as_arrays, cases, names_and_kinds, region_options, sample, weightings

from seglosses_nb import LOSSES

REDUCTIONS = ("none", "sum", "mean")


def value_and_gradient(name, logits, target, **keywords):
    """Return the reduced loss and its gradient for the logits, as arrays."""
    logits = logits.clone().requires_grad_()
    value = LOSSES[name].function(logits, target, **keywords)
    value.sum().backward()
    return value.detach().numpy(), logits.grad.numpy()


def oracle_gradient(name, logits, target, **keywords):
    """Return the gradient by hand where there is one, else the numerical one."""
    if name in GRADIENTS:
        return GRADIENTS[name](logits, target, **keywords)
    return numerical_gradient(ORACLES[name], logits, target, **keywords)


def test_every_loss_has_an_oracle_and_every_oracle_a_loss():
    assert set(ORACLES) == set(LOSSES)
    assert set(GRADIENTS) <= set(LOSSES)
    assert set(VARIANTS) <= set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_oracle_takes_the_parameters_of_its_loss(name):
    parameters = inspect.signature(ORACLES[name]).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keywords == LOSSES[name].parameters


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_by_hand_is_the_slope_of_the_oracle(name):
    """The derivations in oracles.py, checked by differences of the oracle itself."""
    for kind in [kind for known, kind in names_and_kinds() if known == name]:
        picked = itertools.islice(cases(name, kind), 2, None, 19)
        for what, logits, target, keywords in picked:
            arrays = (logits.numpy(), target.numpy())
            keywords = as_arrays(keywords)
            expected = numerical_gradient(ORACLES[name], *arrays, **keywords)
            found = GRADIENTS[name](*arrays, **keywords)
            largest = np.abs(expected).max()
            np.testing.assert_allclose(
                found, expected, rtol=0, atol=1e-8 * largest + 1e-12, err_msg=f"{kind}, {what}"
            )


@pytest.mark.parametrize(("name", "kind"), names_and_kinds())
def test_value_equals_the_oracle_in_float64(name, kind):
    for what, logits, target, keywords in cases(name, kind):
        for reduction in REDUCTIONS:
            value = LOSSES[name].function(logits, target, reduction=reduction, **keywords)
            expected = ORACLES[name](
                logits.numpy(), target.numpy(), reduction=reduction, **as_arrays(keywords)
            )
            assert value.dtype == torch.float64
            assert value.shape == expected.shape, f"{what}, {reduction}"
            np.testing.assert_allclose(
                value.numpy(), expected, rtol=1e-10, atol=0, err_msg=f"{what}, {reduction}"
            )


@pytest.mark.parametrize(("name", "kind"), names_and_kinds())
def test_gradient_equals_the_oracle_in_float64(name, kind):
    exact = name in GRADIENTS
    for what, logits, target, keywords in cases(name, kind):
        reduction = "sum" if "image" in what else "mean"
        _, found = value_and_gradient(name, logits, target, reduction=reduction, **keywords)
        expected = oracle_gradient(
            name, logits.numpy(), target.numpy(), reduction=reduction, **as_arrays(keywords)
        )
        largest = np.abs(expected).max()
        np.testing.assert_allclose(
            found,
            expected,
            rtol=1e-10 if exact else 0,
            # 1e-150: what stands for smooth = 0 in the package
            atol=(1e-14 if exact else 1e-8) * largest + 1e-150,
            err_msg=f"{what}, {reduction}",
        )


@pytest.mark.parametrize(("name", "kind"), names_and_kinds())
def test_value_and_gradient_are_near_the_oracle_in_float32(name, kind):
    for what, logits, target, keywords in cases(name, kind, torch.float32):
        value, found = value_and_gradient(name, logits, target, **keywords)
        # the oracle computes in float64 on the very numbers that the loss got
        arrays = (logits.numpy(), target.numpy())
        expected = ORACLES[name](*arrays, **as_arrays(keywords))
        slope = oracle_gradient(name, logits.double().numpy(), arrays[1], **as_arrays(keywords))
        assert value.dtype == found.dtype == np.float32
        assert abs(value - expected) <= 1e-6 + 1e-6 * abs(expected), what
        # the floor is for gradients that are 0 by cancellation, as at a constant loss
        atol = max(1e-6 * np.abs(slope).max(), 1e-9)
        np.testing.assert_allclose(found, slope, rtol=0, atol=atol, err_msg=what)


@pytest.mark.parametrize(
    ("name", "kind", "space"),
    [
        (name, kind, space)
        for name, kind in names_and_kinds()
        for space in ((5,), (2, 3), (2, 2, 2), (1, 2, 1, 3))
        if LOSSES[name].space_dims is None or len(space) in LOSSES[name].space_dims
    ],
)
def test_any_number_of_space_axes(name, kind, space):
    logits, target, named = sample(kind, space=space)
    for reduction in REDUCTIONS:
        value = LOSSES[name].function(logits, target, reduction=reduction, **named)
        expected = ORACLES[name](logits.numpy(), target.numpy(), reduction=reduction, **named)
        assert value.shape == expected.shape
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "kind"), names_and_kinds())
def test_saturated_logits_are_finite_and_right(name, kind, dtype):
    """Logits of +-1e4, right, wrong and mixed, on every target and under every option."""
    options = itertools.cycle(region_options(name, kind))
    for edge in ("random", "empty", "full", "one pixel"):
        logits, target, named = sample(kind, edge, dtype=dtype)
        for pattern in (logits.sign(), torch.ones_like(logits), -torch.ones_like(logits)):
            for way, changed, weighting in weightings(logits, target):
                keywords = named | weighting | next(options)
                for variant in VARIANTS.get(name, ({},)):
                    extreme = 1e4 * pattern
                    found, slope = value_and_gradient(name, extreme, changed, **keywords, **variant)
                    expected = ORACLES[name](
                        extreme.numpy(), changed.numpy(), **as_arrays(keywords), **variant
                    )
                    assert np.isfinite(found), (edge, way, keywords, variant)
                    assert np.isfinite(slope).all(), (edge, way, keywords, variant)
                    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("magnitude", [10.0, 16.0, 20.0, 40.0, 90.0, 100.0, 800.0])
@pytest.mark.parametrize(("name", "kind"), names_and_kinds())
def test_confident_logits_are_never_negative(name, kind, magnitude):
    """A confident right answer costs almost nothing, but nothing less than nothing."""
    logits, target, named = sample(kind, dtype=torch.float32)
    one_hot = target  # soft targets: the side they lean to
    if kind == "multiclass":
        one_hot = torch.nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1)
    elif kind == "binary":
        one_hot = target.unsqueeze(1)
    right = magnitude * (2.0 * (one_hot > 0.5) - 1) + logits.abs()
    values = LOSSES[name].function(right, target, reduction="none", **named)
    expected = ORACLES[name](right.numpy(), target.numpy(), reduction="none", **named)
    assert (values >= LOSSES[name].value_range[0]).all()
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "kind"), names_and_kinds())
def test_half_precision_on_a_large_image_is_near_float32(name, kind, half):
    logits, target, named = sample(kind, images=1, space=(512, 512), dtype=torch.float32)
    expected = LOSSES[name].function(logits, target, **named)
    halved = logits.to(half).requires_grad_()
    soft = target.is_floating_point()
    value = LOSSES[name].function(halved, target.to(half) if soft else target, **named)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), abs=2e-3)
    assert halved.grad.dtype == half
    assert halved.grad.isfinite().all()


@pytest.mark.parametrize("edge", ["one pixel", "empty"])
@pytest.mark.parametrize(("name", "kind"), names_and_kinds())
def test_a_large_image_in_float32_is_near_float64(name, kind, edge):
    """Neither sums over 262 144 pixels nor the faint gradient on a lost target lose digits."""
    logits, target, named = sample(kind, edge, images=1, space=(512, 512), dtype=torch.float32)
    for variant in VARIANTS.get(name, ({},)):
        keywords = named | variant
        value, found = value_and_gradient(name, logits, target, **keywords)
        expected, slope = value_and_gradient(name, logits.double(), target, **keywords)
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-6)
        atol = max(1e-6 * np.abs(slope).max(), 1e-18)
        np.testing.assert_allclose(found, slope, rtol=0, atol=atol, err_msg=str(variant))


@pytest.mark.parametrize("name", [name for name, kind in names_and_kinds() if kind == "binary"])
def test_the_last_doubtful_pixel_of_a_large_region_still_has_its_gradient(name):
    """The value is below the rounding of 1, the gradient must not go with it."""
    target = torch.ones(1, 512, 512, dtype=torch.long)
    logits = torch.full((1, 1, 512, 512), 20.0)
    logits[0, 0, 5, 7] = 4.6  # p = .99
    _, expected = value_and_gradient(name, logits.double(), target)
    _, found = value_and_gradient(name, logits, target)
    assert expected.argmin() == 5 * 512 + 7
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "kind"), names_and_kinds())
def test_gradcheck_and_gradgradcheck(name, kind):
    options = itertools.cycle(region_options(name, kind))
    logits, target, named = sample(kind, "absent in one image", images=2, space=(2, 2), classes=2)
    if kind.startswith("soft"):
        logits, target, named = sample(kind, images=2, space=(2, 2), classes=2)
    for _, changed, weighting in weightings(logits, target):
        for variant in VARIANTS.get(name, ({},)):
            keywords = named | weighting | variant | next(options)
            if keywords.get("class_weight"):
                keywords["class_weight"] = keywords["class_weight"][: logits.shape[1]]
            inputs = logits.clone().requires_grad_()

            def loss(z, changed=changed, keywords=keywords):
                return LOSSES[name].function(z, changed, **keywords)

            assert torch.autograd.gradcheck(loss, inputs)
            if LOSSES[name].double_backward:
                assert torch.autograd.gradgradcheck(loss, inputs)


@pytest.mark.parametrize(("name", "kind"), [nk for nk in names_and_kinds() if "soft" in nk[1]])
def test_gradient_reaches_soft_targets_and_weights(name, kind):
    """Distillation differentiates the target, learnt weighting the weight."""
    logits, target, named = sample(kind, images=2, space=(2, 2), classes=2)
    weight = torch.rand(2, 2, 2, dtype=torch.float64, requires_grad=True)

    def loss(z, raw, w):
        y = raw.softmax(1) if "multiclass" in kind else raw.sigmoid()
        return LOSSES[name].function(z, y, pixel_weight=w, **named)

    inputs = (logits.requires_grad_(), target.logit().requires_grad_(), weight)
    assert torch.autograd.gradcheck(loss, inputs)
