"""Promises about gradients and precision: right, finite, and the same in every dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .promise import NotApplicableError, agree, given, number, require
from .scenes import DRAWINGS, IGNORED, Scene, as_truth, as_values
from .subject import Subject

# What a GradScaler multiplies the loss by at first, in mixed-precision training.
SCALER = 65536.0


def check_gradcheck(subject: Subject) -> None:
    """The gradient is the derivative of the value: finite differences agree."""
    _need_double(subject)
    for scene, parameters in _small_scenes(subject):
        loss = _of_logits(subject, scene, parameters)
        gradient = subject.gradient(scene, **parameters)
        steps = 1e-6 * torch.eye(scene.logits.numel(), dtype=torch.float64)
        with torch.no_grad():
            pairs = [
                (loss(scene.logits + step), loss(scene.logits - step))
                for step in steps.view(-1, *scene.logits.shape)
            ]
        slopes = torch.stack([(up - down) / 2e-6 for up, down in pairs]).view(scene.logits.shape)
        on = f"{scene}{given(parameters)}: the gradient"
        atol = 1e-6 * float(slopes.abs().max()) + 1e-9
        agree(gradient, slopes, on, "the finite difference", rtol=1e-5, atol=atol)
        if scene.target.is_floating_point() and scene.name == "soft values":
            _check_target_gradient(subject, scene)


def _check_target_gradient(subject: Subject, scene: Scene) -> None:
    """Where a gradient reaches a soft target, as of a teacher who learns too, it is right."""
    target = scene.target.clone().requires_grad_()
    value = subject.value(scene.change(target=target)).sum()
    if not value.requires_grad:
        return
    (gradient,) = torch.autograd.grad(value, target, allow_unused=True)
    if gradient is None:
        return
    steps = 1e-6 * torch.eye(target.numel(), dtype=torch.float64).view(-1, *target.shape)
    with torch.no_grad():
        pairs = [
            [subject.value(scene.change(target=moved)).sum() for moved in (target + s, target - s)]
            for s in steps
        ]
    slopes = torch.stack([(up - down) / 2e-6 for up, down in pairs]).view(target.shape)
    atol = 1e-6 * float(slopes.abs().max()) + 1e-9
    on = f"{scene}: the gradient for the target"
    agree(gradient, slopes, on, "the finite difference", rtol=1e-5, atol=atol)


def check_double_backward(subject: Subject) -> None:
    """Second derivatives are right, or raise where they are declared missing."""
    _need_double(subject)
    declared = subject.facts.double_backward
    for scene, parameters in _small_scenes(subject):
        logits = scene.logits.clone().requires_grad_()
        loss = _of_logits(subject, scene, parameters)
        error = ""
        try:
            (kept,) = torch.autograd.grad(loss(logits), logits, create_graph=True)
            torch.autograd.gradgradcheck(
                loss, (logits,), fast_mode=True, rtol=1e-3, atol=1e-6, nondet_tol=1e-9
            )
        except (RuntimeError, NotImplementedError) as raised:
            error = " ".join(str(raised).split())[:200]
        on = f"{scene}{given(parameters)}: the second derivative"
        hint = subject.hint("double_backward", not declared)
        if declared:
            require(not error, on, "what differences of the gradient give", error, hint)
            plain = subject.gradient(scene, **parameters)
            on = f"{scene}{given(parameters)}: the gradient with create_graph=True"
            agree(kept, plain, on, "the gradient without it", **subject.exact)
        else:
            require(error, on, "an error: stated is double_backward=False", "a value", hint)


def _need_double(subject: Subject) -> None:
    if subject.dtype != torch.float64:
        raise NotApplicableError(
            "it does not compute in float64, and float32 is too coarse for this"
        )


def _small_scenes(subject: Subject) -> Iterator[tuple[Scene, dict[str, Any]]]:
    """Yield images small enough to move every logit in turn."""
    space = None if subject.facts.spatial or subject.facts.space_dims else (4, 4)
    for kind in subject.kinds:
        scene = subject.random(kind, space=space)
        yield from ((scene, parameters) for parameters in subject.settings())
        if subject.has("pixel_weight"):
            yield scene, {"pixel_weight": subject.pixel_weight(scene)}
        if kind in subject.soft_kinds:
            yield subject.softened(kind, space), {}


def _of_logits(
    subject: Subject, scene: Scene, parameters: Mapping[str, Any]
) -> Callable[[Tensor], Tensor]:
    return lambda logits: subject.value(scene.change(logits=logits), **parameters).sum()


def check_extreme_logits(subject: Subject) -> None:
    """Logits of ±10000 give finite values and gradients on every target."""
    edges = ("empty", "full", "two_unequal")
    others = tuple(mask for mask in DRAWINGS if mask not in edges)
    settings = subject.settings()
    if subject.has("absent"):
        settings += [{"absent": "skip"}, {"absent": "worst"}]
    scenes = [(scene, settings) for scene in subject.scenes(edges)]
    for scene in subject.scenes(others):
        scenes.append((scene, [{}]))
        if subject.can_ignore(scene.kind):
            target = torch.full_like(scene.target, IGNORED)
            keywords = scene.keywords | {"ignore_index": IGNORED}
            ignored = scene.change(target=target, keywords=keywords, name="all ignored")
            scenes.append((ignored, settings))
    for scene, each in scenes:
        for name, pattern in _patterns(scene).items():
            extreme = scene.predict(1e4 * pattern, f"logits of 10000, {name}, {scene.name}")
            for parameters in each:
                _check_finite(subject, extreme, parameters)


def _patterns(scene: Scene) -> dict[str, Tensor]:
    """Return signs for the logits of a scene, float32."""
    sign = 2 * scene.values.float() - 1
    every_second = torch.ones_like(sign).flatten(2)
    every_second[..., ::2] = -1
    return {
        "right": sign,
        "wrong": -sign,
        "all high": torch.ones_like(sign),
        "all low": -torch.ones_like(sign),
        "alternating": every_second.view(sign.shape),
        "zero": 0 * sign,
    }


def _check_finite(subject: Subject, scene: Scene, parameters: Mapping[str, Any]) -> None:
    on = f"{scene}{given(parameters)}"
    value, gradient = subject.value_and_gradient(scene, scale=SCALER, **parameters)
    require(value.isfinite().all(), on, "a finite value", value)
    if not gradient.isfinite().all():
        bad = number(gradient[~gradient.isfinite()])
        scaled = subject.gradient(scene, **parameters).isfinite().all()
        under = f" after a GradScaler's factor {SCALER:g}" if scaled else ""
        require(False, on, "a finite gradient", bad + under)


def check_precision(subject: Subject) -> None:
    """Single precision gives the value and the gradient of double precision."""
    _need_double(subject)
    for scene in [*subject.scenes(), *(subject.random(kind, salt=9) for kind in subject.kinds)]:
        for factor in (1, 6):
            logits = (factor * scene.logits).float()
            for parameters in subject.settings():
                single, double = scene.predict(logits), scene.predict(logits.double())
                wanted, slope = subject.value_and_gradient(double, **parameters)
                got, got_slope = subject.value_and_gradient(single, **parameters)
                on = f"{scene}{given(parameters)}, float32, logits up to {logits.abs().max():.3g}"
                agree(got, wanted, on, "the value in float64", rtol=1e-6, atol=1e-6)
                if factor == 1:  # where all pixels are certain, 1 - p has few digits left
                    atol = 1e-5 * float(slope.abs().max()) + 1e-9
                    meaning = "the gradient in float64"
                    agree(got_slope, slope, f"{on}: the gradient", meaning, rtol=0, atol=atol)


def check_half_precision(subject: Subject) -> None:
    """Half precision at 512 x 512 gives the float32 value and a finite gradient."""
    space = {1: (512 * 512,), 2: (512, 512), 3: (64, 64, 64)}.get(subject.dims, (8,) * subject.dims)
    stripes = torch.zeros(1, *space, dtype=torch.long)
    stripes[..., : space[-1] // 3] = 1
    stripes[..., -(space[-1] // 3) :] = 2
    full = torch.ones_like(stripes)  # 262144 ones: in float16 their sum is infinite
    kinds = [kind for kind in ("binary", "multiclass") if kind in subject.kinds]
    for kind in kinds or subject.kinds:
        for name, labels in (("three stripes", stripes), ("all foreground", full)):
            truth = as_truth(labels, kind)
            sign = 2 * as_values(truth, kind).float() - 1
            logits = 3 * sign + 2 * torch.randn(sign.shape, generator=subject.generator(4))
            for dtype in (torch.float16, torch.bfloat16):
                _check_half(subject, subject.build(kind, truth, name, logits.to(dtype)))


def _check_half(subject: Subject, scene: Scene) -> None:
    dtype = scene.logits.dtype
    on = f"{scene}, {'x'.join(map(str, scene.space))}, {dtype}".replace("torch.", "")
    single = scene.predict(scene.logits.float())
    half = single.change(logits=scene.logits)
    wanted = subject.value(single)
    got, gradient = subject.value_and_gradient(half)
    agree(got, wanted, on, "the value in float32", rtol=0, atol=2e-3)
    require(gradient.isfinite().all(), on, "a finite gradient", "NaN or infinity")
    require(got.dtype == torch.float32 or not subject.strict, on, "a float32 value", got.dtype)
    with torch.autocast("cpu", dtype=dtype):
        got = subject.value(single)
    agree(got, wanted, f"{on}, autocast", "the value without autocast", rtol=0, atol=2e-3)
