"""Promises about the value: what is right, what is wrong, and what each costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .promise import BrokenPromiseError, NotApplicableError, agree, given, number, require, worst
from .scenes import DRAWINGS, IGNORED, PREDICTIONS, Scene
from .subject import Subject

WHOLE = tuple(mask for mask in DRAWINGS if mask != "ignored_strip")
ORDINARY = tuple(mask for mask in WHOLE if mask not in ("empty", "full"))


def check_oracle(subject: Subject) -> None:
    """The value equals a trusted float64 implementation, edge cases included."""
    if subject.oracle is None:
        raise NotApplicableError("no oracle was given")
    scenes = list(subject.scenes())
    scenes += [subject.random(kind, salt=salt) for kind in subject.kinds for salt in (0, 1)]
    scenes += [subject.softened(kind) for kind in subject.soft_kinds]
    near = {"rtol": 1e-10, "atol": 1e-13} if subject.dtype == torch.float64 else subject.exact
    for scene in scenes:
        for parameters in _options(subject, scene):
            keywords = subject.fixed | scene.keywords | parameters
            arrays = {n: v.numpy() if isinstance(v, Tensor) else v for n, v in keywords.items()}
            wanted = subject.oracle(scene.logits.numpy(), scene.target.numpy(), **arrays)
            wanted = torch.as_tensor(np.asarray(wanted, dtype=np.float64))
            got = subject.value(scene, **parameters)
            agree(got, wanted, f"{scene}{given(keywords)}", "what the oracle gives", **near)


def _options(subject: Subject, scene: Scene) -> Iterator[dict[str, Any]]:
    """Yield every setting, and every option of the contract that the loss has."""
    yield from subject.settings()
    if subject.has("reduction"):
        yield from ({"reduction": name} for name in ("none", "sum"))
    weighted: dict[str, Any] = {}
    if subject.has("pixel_weight"):
        weighted = {"pixel_weight": subject.pixel_weight(scene)}
        yield weighted
        if subject.has("reduction"):
            yield weighted | {"reduction": "none"}
    if not subject.has("aggregate", "absent", "class_weight", "include_background", "reduction"):
        return
    weight = torch.arange(1, scene.logits.shape[1] + 1, dtype=torch.float64)
    options: list[dict[str, Any]] = [
        {"absent": "skip"},
        {"absent": "worst"},
        {"class_weight": weight},
    ]
    if scene.kind == "multiclass":
        options += [{"include_background": False}]
        options += [{"include_background": False, "class_weight": weight}]
    for option in options:
        yield option
        yield option | weighted | {"reduction": "none"}
        yield option | weighted | {"aggregate": "batch"}


def check_range(subject: Subject) -> None:
    """Every value, before any mean, lies in the declared range."""
    low, high = subject.facts.value_range
    each = {"reduction": "none"} if subject.has("reduction") else {}
    for kind in subject.kinds:
        scenes = [subject.random(kind, salt=salt) for salt in range(4)]
        for mask in WHOLE:
            for scale in (4.0, 40.0):
                scenes += [scene for _, scene, _ in subject.predicted(kind, mask, scale)]
        for scene in scenes:
            value = subject.value(scene, **each)
            hint = subject.hint("value_range", (float(value.min()), float(value.max())))
            expected = f"a value in [{low:g}, {high:g}]"
            require(value.min() >= low - subject.slack, scene, expected, value.min(), hint)
            require(value.max() <= high + subject.slack, scene, expected, value.max(), hint)


def check_minimum(subject: Subject) -> None:
    """The perfect prediction costs the declared minimum, and none costs less."""
    minimum = subject.facts.minimum
    for kind in subject.kinds:
        for mask in ORDINARY:
            for name, scene, _ in subject.predicted(kind, mask, 40.0):
                value = subject.value(scene).mean()
                hint = subject.hint("minimum", float(value))
                if name == "perfect":
                    expected = f"the minimum, {minimum:g}"
                    require((value - minimum).abs() <= 1e-6, scene, expected, value, hint)
                expected = f"at least the minimum, {minimum:g}"
                require(value >= minimum - subject.slack, scene, expected, value, hint)


def check_wrong_costs(subject: Subject) -> None:
    """Wherever something is wrong it costs, with a gradient, unless declared blind."""
    for key in subject.facts.blind_to:
        prediction, _, mask = key.partition(" on ")
        known = prediction in PREDICTIONS and mask in ("", *DRAWINGS)
        expected = "'<prediction>' or '<prediction> on <mask>', of PREDICTIONS and DRAWINGS"
        require(known, "blind_to", expected, repr(key))
    _check_costs(subject, (*ORDINARY, "full"))


def _check_costs(subject: Subject, masks: Sequence[str]) -> None:
    """Every wrong prediction of these masks costs, unless stated; what is stated is true."""
    blind_to = subject.facts.blind_to
    # a prediction without a mask is meant for any of the ordinary ones
    anywhere = ("",) if "full" in masks else ()
    stale = {key for key in blind_to if key.partition(" on ")[2] in (*masks, *anywhere)}
    for kind in subject.kinds:
        for mask in masks:
            for name, scene, wrong in subject.predicted(kind, mask, 4.0):
                value, gradient = subject.value_and_gradient(scene)
                value = value.mean()
                if name == "perfect":
                    right = value
                if not wrong.any():
                    continue
                steepest = gradient[wrong].abs().max()
                # Below these an optimiser in single precision sees nothing.
                costs, steep = bool(value > right + 1e-6), bool(steepest > 1e-7)
                key = f"{name} on {mask}"
                if key in blind_to or name in blind_to:
                    stale -= set() if costs and steep else {key, name}
                    continue
                hint = subject.hint("blind_to", {key: "because ..."})
                expected = f"more than {number(right)}, the loss of the right prediction"
                require(costs, scene, expected, value, hint)
                got = f"none: its largest entry there is {number(steepest)}"
                require(steep, scene, "a gradient where it is wrong", got, hint)
    for key in sorted(stale):
        got = "a value above that of the right prediction, with a gradient"
        raise BrokenPromiseError(key, f"blindness, as stated: {blind_to[key]}", got)


def check_edge_targets(subject: Subject) -> None:
    """On empty, full and all-ignored targets right is free, and wrong costs."""
    minimum = subject.facts.minimum
    for kind in subject.kinds:
        for mask in ("empty", "full"):
            scene = subject.scene(kind, mask).perfect(1e4)
            for parameters in subject.settings():
                value = subject.value(scene, **parameters).mean()
                on, expected = f"{scene}{given(parameters)}", f"the minimum, {minimum:g}"
                require((value - minimum).abs() <= 1e-6, on, expected, value)
        _check_both(subject, kind)
        _check_all_ignored(subject, kind)
    if subject.facts.empty_target == "costs":
        _check_costs(subject, ["empty"])
        return
    for kind in subject.kinds:
        for _, scene, _ in subject.predicted(kind, "empty", 4.0):
            value, gradient = subject.value_and_gradient(scene)
            free = (value - minimum).abs().max() <= 1e-6 and gradient.abs().max() <= 1e-7
            expected = "no cost: stated is empty_target='free'"
            require(free, scene, expected, value)


def _check_both(subject: Subject, kind: str) -> None:
    """An image without and one full of foreground, in one batch."""
    truth = torch.stack([subject.scene(kind, mask).truth[0] for mask in ("empty", "full")])
    scene = subject.build(kind, truth, "an empty and a full image")
    for parameters in subject.settings():
        value, gradient = subject.value_and_gradient(scene, **parameters)
        fine = value.isfinite().all() and gradient.isfinite().all()
        on = f"{scene}{given(parameters)}"
        require(fine, on, "a finite value and gradient", f"{number(value)}, or its gradient")


def _check_all_ignored(subject: Subject, kind: str) -> None:
    """All pixels ignored cost nothing, whatever is predicted."""
    scene = subject.random(kind)
    everywhere = torch.ones(2, *scene.space, dtype=torch.bool)
    for way in ("ignore_index", "pixel_weight"):
        if not subject.has(way) or (way == "ignore_index" and not subject.can_ignore(kind)):
            continue
        for parameters in subject.settings():
            ignored, keywords = ignore(scene, everywhere, way)
            value, gradient = subject.value_and_gradient(ignored, **keywords, **parameters)
            on = f"{scene}, all pixels ignored by {way}{given(parameters)}"
            require((value == 0).all(), on, "0", value)
            require((gradient == 0).all(), on, "no gradient", gradient.abs().max())


def ignore(
    scene: Scene, where: Tensor, way: str, label: int = IGNORED
) -> tuple[Scene, dict[str, Any]]:
    """Mark pixels (N, *space), or entries (N, C, *space), as ignored by their label or weight 0."""
    if way == "pixel_weight":
        return scene, {"pixel_weight": (~where).to(scene.logits.dtype)}
    where = where if where.ndim == scene.target.ndim else where.unsqueeze(1)
    return scene.change(target=torch.where(where, label, scene.target)), {"ignore_index": label}


def check_monotone(subject: Subject) -> None:
    """Moving a pixel towards the truth never raises the loss."""
    found = next(_uphill(subject), None)
    if subject.facts.monotone and found:
        raise BrokenPromiseError(*found, subject.hint("monotone", False))
    require(
        subject.facts.monotone or found,
        "thousands of pixels moved",
        "one whose move raises the loss: stated is monotone=False",
        "none",
    )


def _uphill(subject: Subject) -> Iterator[tuple[str, str, str]]:
    """Yield moves towards the truth that raise the loss: input, expected, got."""
    for kind in subject.kinds:
        scenes = [subject.random(kind, salt=salt) for salt in range(3)]
        for scene in [*subject.scenes(WHOLE, kind), *scenes]:
            # among exclusive classes the logit of the true one rises, else each goes its way
            way = scene.values if kind == "multiclass" else 2 * scene.values - 1
            value, gradient = subject.value_and_gradient(scene)
            slope, value = gradient * way, value.sum()
            if slope.max() > subject.slack:
                place = worst(slope)
                yield str(scene), f"a slope <= 0 for the logit {place}", number(slope[place])
            generator = subject.generator(3)
            for _ in range(4):  # a whole step, where a slope may be 0
                pixel = [int(torch.randint(n, (), generator=generator)) for n in way.shape]
                index = (pixel[0], slice(None), *pixel[2:])
                moved = scene.logits.clone()
                moved[index] += way[index]
                after = subject.value(scene.predict(moved)).sum()
                if after > value + subject.slack:
                    where = f"after a step at pixel {(pixel[0], *pixel[2:])}"
                    yield str(scene), f"at most {number(value)} {where}", number(after)


def check_sides(subject: Subject) -> None:
    """A parameter that weighs one kind of error makes that kind dearer, not the other."""
    if not subject.facts.sides:
        raise NotApplicableError("no parameter is declared to take sides")
    kind = next(kind for kind in ("binary", "multilabel", "multiclass") if kind in subject.kinds)
    only = {
        "false positives": ("dilated", "false_object"),
        "false negatives": ("eroded", "half_missing"),
    }
    for parameter, side in subject.facts.sides.items():
        expected = f"one of {', '.join(map(repr, only))}"
        require(side in only, f"sides[{parameter!r}]", expected, repr(side))
        subject.need(parameter)
        default = subject.parameters[parameter]
        low = float(default) if isinstance(default, (int, float)) else 1.0
        high = (1 + low) / 2 if 0 <= low < 1 else 1.5 * low
        for mask in ("two_unequal", "border"):
            for name, scene, _ in subject.predicted(kind, mask, 30.0):
                for error in (error for error, names in only.items() if name in names):
                    old, new = (
                        float(subject.value(scene, **{parameter: value}).mean())
                        for value in (low, high)
                    )
                    on = f"{scene}: {error} only, {parameter} from {low:g} to {high:g}"
                    slack = 1e-4 * max(abs(old), 1e-3)
                    if error == side:
                        require(new > old + slack, on, f"more than {number(old)}", new)
                    else:
                        require(new <= old + slack, on, f"at most {number(old)}", new)


def check_soft_targets(subject: Subject) -> None:
    """For a soft target the probability equal to it is the best prediction."""
    if not subject.soft_kinds:
        raise NotApplicableError("it takes no soft targets")
    for kind in subject.soft_kinds:
        scene = subject.softened(kind)
        soft = scene.target
        exact = soft.log() if kind == "multiclass" else soft.logit()
        best = subject.value(scene.predict(exact)).mean()
        sharp = soft == soft.amax(1, keepdim=True) if kind == "multiclass" else soft > 0.5
        noise = torch.randn(soft.shape, generator=subject.generator(6), dtype=torch.float64)
        noise = noise.to(soft.dtype)
        first = torch.zeros_like(soft)
        first[:, 0] = 0.3
        others = {
            "rounded to 0 and 1": 12 * (2 * sharp.to(soft.dtype) - 1),
            "sharpened": 1.5 * exact,
            "dulled": 0.7 * exact,
            "with more of class 0": exact + first,
            "with less of class 0": exact - first,
            "with a little noise": exact + 0.05 * noise,
            "with much noise": exact + noise,
            "uniform": 0 * exact,
        }
        for name, logits in others.items():
            got = subject.value(scene.predict(logits)).mean()
            on = f"soft values, {kind}: prediction p = y {name}"
            expected = f"at least {number(best)}, the loss at p = y"
            hint = subject.hint("targets", tuple(subject.kinds))
            require(got >= best - subject.slack, on, expected, got, hint)


def check_special_cases(subject: Subject) -> None:
    """The stated identities hold."""
    if not subject.facts.special_cases:
        raise NotApplicableError("no special cases are stated")
    for case in subject.facts.special_cases:
        on = f"special case '{case.statement}'"
        require(case.kind in subject.kinds, on, f"{case.kind} among the targets", subject.kinds)
        scenes = [subject.random(case.kind, salt=salt) for salt in range(3)]
        for scene in [*scenes, *subject.scenes(WHOLE, case.kind)]:
            got = case.left(scene.logits, scene.target)
            wanted = case.right(scene.logits, scene.target)
            agree(got, wanted, f"{on}, {scene}", "the other side", **subject.exact)
