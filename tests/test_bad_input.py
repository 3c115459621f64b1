"""Every mistake gets an error that names the argument, what came, what is wanted and the fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from samples import BINARY, CLASSES, MASKS, ONE, SOFT_ONE, SOFT_THREE, THREE, labels, with_value
from torch import Tensor
from torch._subclasses import FakeTensorMode

import seglosses_nb
from seglosses_nb import binary_cross_entropy, cross_entropy, dice_loss

ALL = (binary_cross_entropy, cross_entropy, dice_loss)
MULTICLASS = (cross_entropy, dice_loss)
REGION = (dice_loss,)
NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=ALL, ids=lambda loss: loss.__name__)
def loss(request) -> Callable[..., Tensor]:
    """Every loss, in the mode that all of them have: binary."""
    return request.param


# ---------------------------------------------------------------------------------------- bad input


@dataclass(frozen=True)
class Bad:
    """A mistake, and what its message has to say: what, got, wanted, fix, in this order."""

    mistake: str
    call: Callable[[Callable[..., Tensor]], Tensor]
    error: type[Exception]
    message: str
    losses: tuple[Callable[..., Tensor], ...] = ALL


BAD = [
    # --- the six of every beginner
    Bad(
        "wrong shape: other space axes of the same size",
        lambda f: f(ONE, labels(2, 4, 16)),
        ValueError,
        r"target.*\(2, 4, 16\).*need \(2, 8, 8\) labels.*; .*(size|shape|crop|interpolate)",
    ),
    Bad(
        "a mask of 0 and 255",
        lambda f: f(ONE, 255 * BINARY),
        ValueError,
        r"target.*255.*1 channel need labels in \[0, 1\].*divide .* by 255",
    ),
    Bad(
        "a uint8 mask of 0 and 255",
        lambda f: f(ONE, (255 * BINARY).to(torch.uint8)),
        ValueError,
        r"target.*label 255.*labels in \[0, 1\].*divide .* by 255",
    ),
    Bad(
        "void pixels of 255 among classes",
        lambda f: f(THREE, with_value(CLASSES, 255)),
        ValueError,
        r"target.*label 255.*3 channels need labels in \[0, 2\].*ignore_index=255",
        MULTICLASS,
    ),
    Bad(
        "float labels for classes",
        lambda f: f(THREE, CLASSES.float()),
        ValueError,
        r"target.*torch\.float32 .*\(2, 8, 8\).*integer labels .*\(2, 8, 8\).*target\.long\(\)",
        MULTICLASS,
    ),
    Bad(
        "float labels for a binary mask",
        lambda f: f(ONE, BINARY.float()),
        ValueError,
        r"target.*torch\.float32 .*\(2, 8, 8\).*\(2, 1, 8, 8\).*unsqueeze\(1\).*target\.long\(\)",
    ),
    Bad(
        "one channel with the class indices 0..2",
        lambda f: f(ONE, CLASSES),
        ValueError,
        r"target.*label 2.*1 channel need labels in \[0, 1\].*one channel per class",
    ),
    Bad(
        "one channel with float class indices",
        lambda f: f(ONE, CLASSES.unsqueeze(1).double()),
        ValueError,
        r"target.*value 2.*\[0, 1\].*integer labels: target\.long\(\)",
    ),
    Bad(
        "NaN among the pixel weights",
        lambda f: f(ONE, BINARY, pixel_weight=with_value(torch.ones(2, 8, 8), NAN)),
        ValueError,
        "pixel_weight.*nan.*finite and >= 0.*weight 0",
    ),
    Bad(
        "unknown reduction",
        lambda f: f(ONE, BINARY, reduction="avg"),
        ValueError,
        "reduction.*'avg'.*'mean', 'sum', 'none'",
    ),
    Bad(
        "no reduction",
        lambda f: f(ONE, BINARY, reduction=None),
        ValueError,
        "reduction.*None.*'mean', 'sum', 'none'",
    ),
    # --- what is no tensor, or of the wrong kind
    Bad(
        "logits are an array",
        lambda f: f(ONE.numpy(), BINARY),
        TypeError,
        r"logits.*ndarray.*torch\.Tensor.*as_tensor",
    ),
    Bad(
        "logits are missing",
        lambda f: f(None, BINARY),
        TypeError,
        r"logits.*NoneType.*torch\.Tensor",
    ),
    Bad(
        "target is an array",
        lambda f: f(ONE, BINARY.numpy()),
        TypeError,
        r"target.*ndarray.*torch\.Tensor.*as_tensor",
    ),
    Bad("target is missing", lambda f: f(ONE, None), TypeError, r"target.*NoneType.*torch\.Tensor"),
    Bad(
        "pixel_weight is a number",
        lambda f: f(ONE, BINARY, pixel_weight=2.0),
        TypeError,
        r"pixel_weight.*float.*torch\.Tensor",
    ),
    Bad(
        "the prediction after argmax",
        lambda f: f(THREE.argmax(1, keepdim=True), BINARY),
        TypeError,
        r"logits.*torch\.int64.*float32 or float64.*before any sigmoid, softmax or argmax",
    ),
    Bad(
        "complex logits",
        lambda f: f(ONE.to(torch.complex128), BINARY),
        TypeError,
        r"logits.*torch\.complex128.*float32 or float64",
    ),
    Bad(
        "logits of eight bits",
        lambda f: f(ONE.to(torch.float8_e4m3fn), BINARY),
        TypeError,
        r"logits.*torch\.float8_e4m3fn.*float32 or float64",
    ),
    Bad(
        "complex target",
        lambda f: f(ONE, SOFT_ONE.to(torch.complex128)),
        TypeError,
        r"target.*torch\.complex128.*integer, bool or floating",
    ),
    Bad(
        "a mask as weight",
        lambda f: f(ONE, BINARY, pixel_weight=BINARY > 0),
        TypeError,
        r"pixel_weight.*torch\.bool.*a real number per pixel.*\.float\(\)",
    ),
    Bad(
        "ignore_index is a float",
        lambda f: f(ONE, BINARY, ignore_index=255.0),
        TypeError,
        r"ignore_index.*255\.0.*an int or None",
    ),
    Bad(
        "ignore_index is a switch",
        lambda f: f(ONE, BINARY, ignore_index=True),
        TypeError,
        "ignore_index.*True.*an int or None",
    ),
    Bad(
        "multilabel is a number",
        lambda f: f(ONE, BINARY, multilabel=3),
        TypeError,
        "multilabel.*3.*True or False",
    ),
    Bad(
        "squared is a word",
        lambda f: f(ONE, BINARY, squared="no"),
        TypeError,
        "squared.*'no'.*True or False",
        REGION,
    ),
    Bad(
        "include_background is a class",
        lambda f: f(THREE, CLASSES, include_background=1),
        TypeError,
        "include_background.*1.*True or False",
        REGION,
    ),
    # --- shapes
    Bad(
        "logits without a channel axis",
        lambda f: f(ONE[:, 0, 0], BINARY[:, 0]),
        ValueError,
        r"logits.*\(2, 8\).*\(N, C, \*space\).*unsqueeze",
    ),
    Bad(
        "logits without a channel",
        lambda f: f(torch.zeros(2, 0, 8, 8), BINARY),
        ValueError,
        r"logits.*\(2, 0, 8, 8\).*C >= 1",
    ),
    Bad(
        "logits without a channel axis, but three axes",
        lambda f: f(ONE[:, 0], BINARY),
        ValueError,
        r"(target|logits).*\(2, 8, 8\).*(unsqueeze\(1\)|channel)",
    ),
    Bad(
        "one-hot integers",
        lambda f: f(THREE, torch.nn.functional.one_hot(CLASSES).movedim(-1, 1)),
        ValueError,
        r"target.*\(2, 3, 8, 8\).*\(2, 8, 8\) labels.*target\.float\(\).*multilabel=True",
        MULTICLASS,
    ),
    Bad(
        "labels with a channel axis",
        lambda f: f(THREE, CLASSES.unsqueeze(1)),
        ValueError,
        r"target.*\(2, 1, 8, 8\).*\(2, 8, 8\) labels.*target\.squeeze\(1\)",
        MULTICLASS,
    ),
    Bad(
        "another batch size",
        lambda f: f(ONE, BINARY[:1]),
        ValueError,
        r"target.*\(1, 8, 8\).*\(2, 8, 8\) labels.*batch sizes differ",
    ),
    Bad(
        "class labels for a multilabel loss",
        lambda f: f(THREE, CLASSES, multilabel=True),
        ValueError,
        r"target.*\(2, 8, 8\).*\(2, 3, 8, 8\) masks or soft values",
    ),
    Bad(
        "soft target of another channel count",
        lambda f: f(THREE, SOFT_ONE),
        ValueError,
        r"target.*\(2, 1, 8, 8\).*\(2, 3, 8, 8\)",
        MULTICLASS,
    ),
    Bad(
        "channels last",
        lambda f: f(THREE, SOFT_THREE.movedim(1, -1)),
        ValueError,
        r"target.*\(2, 8, 8, 3\).*\(2, 3, 8, 8\)",
        MULTICLASS,
    ),
    Bad(
        "pixel_weight with a channel axis",
        lambda f: f(ONE, BINARY, pixel_weight=torch.ones(2, 1, 8, 8)),
        ValueError,
        r"pixel_weight.*\(2, 1, 8, 8\).*\(2, 8, 8\).*no channel axis",
    ),
    Bad(
        "one weight per image",
        lambda f: f(ONE, BINARY, pixel_weight=torch.ones(2)),
        ValueError,
        r"pixel_weight.*\(2,\).*\(2, 8, 8\).*one weight per pixel",
    ),
    # --- values
    Bad(
        "a negative label",
        lambda f: f(THREE, with_value(CLASSES, -1)),
        ValueError,
        r"target.*label -1.*\[0, 2\].*ignore_index=-1",
        MULTICLASS,
    ),
    Bad(
        "a class too many",
        lambda f: f(THREE, with_value(CLASSES, 3)),
        ValueError,
        r"target.*label 3.*\[0, 2\].*4 channels",
        MULTICLASS,
    ),
    Bad(
        "another void label than the one given",
        lambda f: f(THREE, with_value(CLASSES, 254), ignore_index=255),
        ValueError,
        r"target.*label 254.*\[0, 2\]",
        MULTICLASS,
    ),
    Bad(
        "a multilabel mask with class indices",
        lambda f: f(THREE, with_value(MASKS, 2), multilabel=True),
        ValueError,
        r"target.*label 2.*\[0, 1\].*multilabel=False",
    ),
    Bad(
        "a float mask of 0 and 255",
        lambda f: f(ONE, 255 * BINARY.unsqueeze(1).double()),
        ValueError,
        r"target.*value 255.*\[0, 1\].*divide .* by 255",
    ),
    Bad(
        "logits for a target",
        lambda f: f(ONE, with_value(SOFT_ONE, -1.3)),
        ValueError,
        r"target.*-1\.3.*\[0, 1\].*sigmoid or softmax",
    ),
    Bad(
        "a soft value just above 1",
        lambda f: f(ONE, with_value(SOFT_ONE, 1.02)),
        ValueError,
        r"target.*1\.02.*\[0, 1\]",
    ),
    Bad(
        "NaN in a soft target",
        lambda f: f(ONE, with_value(SOFT_ONE, NAN)),
        ValueError,
        r"target.*nan.*\[0, 1\].*pixel_weight=0",
    ),
    Bad(
        "NaN with its sign bit set in a soft target",
        lambda f: f(ONE, with_value(SOFT_ONE, -NAN)),
        ValueError,
        r"target.*nan.*\[0, 1\].*pixel_weight=0",
    ),
    Bad(
        "infinity in a soft target",
        lambda f: f(ONE, with_value(SOFT_ONE, INF)),
        ValueError,
        r"target.*inf.*\[0, 1\]",
    ),
    Bad(
        "overlapping classes as if exclusive",
        lambda f: f(THREE, MASKS.double()),
        ValueError,
        "target.*add up to.*need 1.*multilabel=True",
        MULTICLASS,
    ),
    Bad(
        "pixels without any class",
        lambda f: f(THREE, SOFT_THREE * (CLASSES > 0).unsqueeze(1)),
        ValueError,
        "target.*add up to 0.*need 1.*pixel_weight=0",
        MULTICLASS,
    ),
    Bad(
        "a soft target with ignore_index",
        lambda f: f(ONE, SOFT_ONE, ignore_index=255),
        ValueError,
        "ignore_index.*255.*integer labels.*pixel_weight=0",
    ),
    Bad(
        "a negative pixel weight",
        lambda f: f(ONE, BINARY, pixel_weight=with_value(torch.ones(2, 8, 8), -0.5)),
        ValueError,
        r"pixel_weight.*-0\.5.*finite and >= 0.*weight 0",
    ),
    Bad(
        "an infinite pixel weight",
        lambda f: f(ONE, BINARY, pixel_weight=with_value(torch.ones(2, 8, 8), INF)),
        ValueError,
        "pixel_weight.*inf.*finite and >= 0",
    ),
    Bad(
        "exclusive classes for a yes-or-no loss",
        lambda f: f(THREE, CLASSES),
        ValueError,
        "logits.*3 channels.*one.*multilabel=True.*cross_entropy",
        (binary_cross_entropy,),
    ),
    # --- what region losses add
    Bad(
        "unknown aggregate",
        lambda f: f(ONE, BINARY, aggregate="volume"),
        ValueError,
        "aggregate.*'volume'.*'image', 'batch'",
        REGION,
    ),
    Bad(
        "unknown absent",
        lambda f: f(ONE, BINARY, absent="zero"),
        ValueError,
        "absent.*'zero'.*'smooth', 'skip', 'worst'",
        REGION,
    ),
    Bad(
        "no background in a binary target",
        lambda f: f(ONE, BINARY, include_background=False),
        ValueError,
        "include_background.*binary.*C >= 2.*leave include_background",
        REGION,
    ),
    Bad(
        "no background in a multilabel target",
        lambda f: f(THREE, MASKS, multilabel=True, include_background=False),
        ValueError,
        "include_background.*multilabel.*C >= 2.*leave include_background",
        REGION,
    ),
    Bad(
        "a class weight too few",
        lambda f: f(THREE, CLASSES, class_weight=[1.0, 2.0]),
        ValueError,
        r"class_weight.*\(2,\).*\(3,\).*one weight per channel",
        REGION,
    ),
    Bad(
        "a class weight too few without background",
        lambda f: f(THREE, CLASSES, class_weight=[1.0, 2.0], include_background=False),
        ValueError,
        r"class_weight.*\(2,\).*\(3,\).*background",
        REGION,
    ),
    Bad(
        "one number as class weights",
        lambda f: f(THREE, CLASSES, class_weight=2.0),
        ValueError,
        r"class_weight.*\(\).*\(3,\)",
        REGION,
    ),
    Bad(
        "class weights by name",
        lambda f: f(THREE, CLASSES, class_weight="balanced"),
        TypeError,
        "class_weight.*'balanced'.*3 numbers.*class_weights",
        REGION,
    ),
    Bad(
        "a negative class weight",
        lambda f: f(THREE, CLASSES, class_weight=[1.0, -2.0, 1.0]),
        ValueError,
        "class_weight.*-2.*finite and >= 0.*weight 0",
        REGION,
    ),
    Bad(
        "NaN among the class weights",
        lambda f: f(THREE, CLASSES, class_weight=torch.tensor([1.0, NAN, 1.0])),
        ValueError,
        "class_weight.*nan.*finite and >= 0.*weight 0",
        REGION,
    ),
    Bad(
        "a process group for sums over images",
        lambda f: f(ONE, BINARY, process_group="world"),
        ValueError,
        "process_group.*'image'.*aggregate='batch'",
        REGION,
    ),
    Bad(
        "a process group that is none",
        lambda f: f(ONE, BINARY, process_group="gloo", aggregate="batch"),
        TypeError,
        r"process_group.*'gloo'.*torch\.distributed group.*'world'",
        REGION,
    ),
    Bad(
        "negative smoothing",
        lambda f: f(ONE, BINARY, smooth=-1.0),
        ValueError,
        r"smooth.*-1\.0.*0 <= smooth",
        REGION,
    ),
    Bad(
        "NaN as smoothing",
        lambda f: f(ONE, BINARY, smooth=NAN),
        ValueError,
        "smooth.*nan.*0 <= smooth",
        REGION,
    ),
    Bad(
        "infinite smoothing",
        lambda f: f(ONE, BINARY, smooth=INF),
        ValueError,
        "smooth.*inf.*finite",
        REGION,
    ),
    Bad(
        "smoothing by a word",
        lambda f: f(ONE, BINARY, smooth="1"),
        TypeError,
        "smooth.*'1'.*a number",
        REGION,
    ),
    Bad(
        "smoothing by a switch",
        lambda f: f(ONE, BINARY, smooth=True),
        TypeError,
        "smooth.*True.*a number",
        REGION,
    ),
]


@pytest.mark.parametrize(
    ("bad", "function"),
    [(bad, function) for bad in BAD for function in bad.losses],
    ids=lambda value: value.mistake if isinstance(value, Bad) else value.__name__,
)
def test_a_mistake_gets_a_message_that_helps(bad, function):
    with pytest.raises(bad.error) as caught:
        bad.call(function)
    message = str(caught.value)
    assert type(caught.value) is bad.error
    assert message.startswith(f"{function.__name__}: "), message
    assert re.search(bad.message, message), message


def test_other_device_is_named(loss):
    with pytest.raises(ValueError, match=r"target is on meta but logits are on cpu; .*\.to\('cpu'"):
        loss(ONE, BINARY.to("meta"))
    with pytest.raises(ValueError, match="pixel_weight is on meta but logits are on cpu"):
        loss(ONE, BINARY, pixel_weight=torch.ones(2, 8, 8, device="meta"))


@pytest.mark.parametrize("position", [0, 77, 127])
def test_a_single_bad_value_anywhere_is_seen(loss, position):
    for target in (BINARY, SOFT_ONE):
        for value in (2, 255, -1):
            spoilt = target.clone()
            spoilt.view(-1)[position] = value
            with pytest.raises(ValueError, match=rf"target holds the (label|value) {value} "):
                loss(ONE, spoilt)


def test_arguments_after_the_tensors_are_keyword_only(loss):
    with pytest.raises(TypeError, match="positional"):
        loss(ONE, BINARY, True)


def test_bad_input_stays_bad_in_half_precision(loss):
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match="target holds the value 2 "):
            loss(ONE.to(dtype), with_value(SOFT_ONE, 2).to(dtype))
        with pytest.raises(ValueError, match="target holds the value nan "):
            loss(ONE.to(dtype), with_value(SOFT_ONE, NAN).to(dtype))


# ------------------------------------------------------------------------------------- value checks


@pytest.fixture
def unchecked():
    """Switch the checks of values off for one test."""
    before = seglosses_nb.set_value_checks(False)
    yield
    seglosses_nb.set_value_checks(before)


def test_set_value_checks_returns_the_old_state():
    assert seglosses_nb.set_value_checks(False) is True
    try:
        assert seglosses_nb.set_value_checks(False) is False
    finally:
        assert seglosses_nb.set_value_checks(True) is False
    assert seglosses_nb.set_value_checks(True) is True


@pytest.mark.usefixtures("unchecked")
def test_value_checks_can_be_switched_off(loss):
    assert loss(ONE, with_value(SOFT_ONE, 2.0)).isfinite()
    assert loss(ONE, BINARY, pixel_weight=-torch.ones(2, 8, 8)).ndim == 0
    with pytest.raises(ValueError, match="target has shape"):  # shapes are always checked
        loss(ONE, labels(2, 4, 16))
    with pytest.raises(ValueError, match="reduction"):
        loss(ONE, BINARY, reduction="avg")


def test_value_checks_are_on_elsewhere(loss):
    """Gradients, autograd modes, autocast, subclasses and ``torch.func.grad`` do not lose them."""
    bad = with_value(SOFT_ONE, 2.0)
    parameter = torch.nn.Parameter(ONE.clone())
    for context in (torch.no_grad(), torch.enable_grad(), torch.inference_mode()):
        with context, pytest.raises(ValueError, match="target holds the value 2"):
            loss(parameter, bad)
    with torch.autocast("cpu"), pytest.raises(ValueError, match="target holds the value 2"):
        loss(parameter, bad)
    with pytest.raises(ValueError, match="target holds the value 2"):
        torch.func.grad(lambda z: loss(z, bad))(ONE)
    with pytest.raises(ValueError, match="target holds the value 2"):
        torch.func.grad(lambda y: loss(ONE, y))(bad)
    with pytest.raises(ValueError, match="target holds the value 2"):
        loss(ONE, bad.clone().requires_grad_())
    with pytest.raises(ValueError, match="target holds the value 2"):
        loss(ONE, torch.nn.Parameter(bad))
    with pytest.raises(ValueError, match="target holds the label 7"):
        torch.func.grad(lambda z: loss(z, with_value(BINARY, 7)))(ONE)


def test_value_checks_are_skipped_under_vmap(loss):
    bad = with_value(SOFT_ONE, 2.0)
    assert torch.func.vmap(lambda z, y: loss(z, y))(ONE[None], bad[None]).shape == (1,)
    assert torch.func.vmap(torch.func.grad(lambda z, y: loss(z, y)))(ONE[None], bad[None]).shape
    assert torch.func.vmap(lambda y: loss(ONE, y))(bad[None]).shape == (1,)


def test_value_checks_are_skipped_on_fake_tensors(loss):
    bad = with_value(SOFT_ONE, 2.0)
    with FakeTensorMode() as mode:
        logits, target, soft = (mode.from_tensor(tensor) for tensor in (ONE, BINARY, bad))
        value = loss(logits, soft)
        weighted = loss(logits, target, pixel_weight=torch.ones(2, 8, 8))
    assert value.shape == weighted.shape == ()
    meta = loss(ONE.to("meta"), BINARY.to("meta"), ignore_index=255)
    assert meta.device.type == "meta"


@pytest.mark.parametrize("target", ["labels", "soft"])
def test_value_checks_are_skipped_under_compile(loss, target):
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    good, bad = (BINARY, with_value(BINARY, 7)) if target == "labels" else (SOFT_ONE, 2 * SOFT_ONE)
    torch.testing.assert_close(compiled(ONE, good), loss(ONE, good))
    assert compiled(ONE, bad).ndim == 0
    with pytest.raises(Exception, match="target has shape"):
        compiled(ONE, labels(2, 4, 16))
    torch.compiler.reset()


def test_value_checks_are_skipped_under_export(loss):
    class Wrapped(torch.nn.Module):
        def forward(self, z, y, w):
            return loss(z, y, pixel_weight=w, ignore_index=255)

    weight = torch.rand(2, 8, 8)
    exported = torch.export.export(Wrapped(), (ONE, BINARY, weight)).module()
    expected = loss(ONE, BINARY, pixel_weight=weight, ignore_index=255)
    torch.testing.assert_close(exported(ONE, BINARY, weight), expected)
