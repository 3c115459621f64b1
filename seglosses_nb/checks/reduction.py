"""Promises about pixels, images and classes: what counts, how much, and how it is put together."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .form import refused
from .promise import NotApplicableError, agree, given, require
from .scenes import CLASSES, IGNORED, Scene
from .subject import Subject
from .value import ignore


def check_reductions(subject: Subject) -> None:
    """Mean, sum and none agree; none has one value per declared unit."""
    subject.need("reduction")
    for kind in subject.kinds:
        scene = subject.random(kind, count=3)
        settings: list[dict[str, Any]] = [{}]
        if subject.has("aggregate"):
            settings += [{"aggregate": "batch"}]
        if subject.has("pixel_weight"):
            weight = subject.pixel_weight(scene)
            without_first = weight * ~_first_image(scene)
            weights = [{"pixel_weight": weight}, {"pixel_weight": without_first}]
            settings += [setting | more for setting in settings for more in weights]
        for setting in settings:
            _check_reduction(subject, scene, setting)


def _check_reduction(subject: Subject, scene: Scene, setting: Mapping[str, Any]) -> None:
    each, total, mean = (
        subject.value(scene, **setting, reduction=name) for name in ("none", "sum", "mean")
    )
    on, unit = f"{scene}{given(setting)}, reduction", subject.facts.unit
    if "unit" in subject.stated:
        count, channels = scene.logits.shape[:2]
        rows = 1 if setting.get("aggregate") == "batch" else count
        pixels = (count, channels) if scene.kind == "multilabel" else (count,)
        shapes = {"pixel": (*pixels, *scene.space), "region": (rows, channels), "image": (rows,)}
        expected = f"shape {shapes[unit]}, one value per {unit}"
        fits = tuple(each.shape) == shapes[unit]
        require(fits, f"{on}='none'", expected, f"shape {tuple(each.shape)}")
    agree(total, each.sum(), f"{on}='sum'", "the sum of 'none'", **subject.exact)
    amount: Any = each.numel()
    weight = setting.get("pixel_weight")
    if weight is not None and unit == "pixel":
        amount = weight.sum() * (each.numel() // weight.numel())
    elif weight is not None and setting.get("aggregate") != "batch":
        amount = amount * weight.flatten(1).any(1).float().mean()
    meaning = "the sum of 'none' over the weights, or the regions, that count"
    agree(mean, each.sum() / amount, f"{on}='mean'", meaning, **subject.exact)


def check_aggregation(subject: Subject) -> None:
    """A batch is the mean of its images, or one big image where that is asked for."""
    known = subject.has("aggregate") or "unit" in subject.stated or "family" in subject.stated
    for kind in subject.kinds:
        scene = subject.random(kind, count=3)
        value, whole = subject.value(scene), scene.side_by_side()
        mean = torch.stack([subject.value(image) for image in scene.images()]).mean(0)
        if known or subject.facts.spatial or torch.allclose(value, mean, **subject.exact):
            agree(value, mean, scene, "the mean over the single images", **subject.exact)
        else:  # a stranger's may as well sum over the batch
            meaning = "the batch as one image; nor is it the mean over the images"
            agree(value, subject.value(whole), scene, meaning, **subject.exact)
        if not subject.has("aggregate"):
            continue
        if subject.has("reduction"):
            rows = [subject.value(image, reduction="none") for image in scene.images()]
            got, on = subject.value(scene, reduction="none"), f"{scene}, reduction='none'"
            agree(got, torch.cat(rows), on, "the single images", **subject.exact)
        if not subject.facts.spatial:
            got, on = subject.value(scene, aggregate="batch"), f"{scene}, aggregate='batch'"
            agree(got, subject.value(whole), on, "the batch as one image", **subject.exact)


def check_ignore_equals_crop(subject: Subject) -> None:
    """Ignored pixels are as good as cut out, whatever stands there."""
    ways = [
        (kind, way)
        for kind in subject.kinds
        for way in ("ignore_index", "pixel_weight")
        if subject.has(way) and (way == "pixel_weight" or subject.can_ignore(kind))
    ]
    if not ways:
        raise NotApplicableError("it has no pixel_weight, nor an ignore_index for labels")
    for kind, way in ways:
        _check_strip(subject, kind, way)
        _check_image(subject, kind, way)
        if not subject.facts.spatial:
            _check_scattered(subject, kind, way)
    if ("multilabel", "ignore_index") in ways and subject.facts.unit in ("pixel", "region"):
        _check_channel(subject)


def _check_strip(subject: Subject, kind: str, way: str) -> None:
    """A strip along the border, in every image, against the images without it."""
    for scene in (subject.random(kind, count=3), subject.scene(kind, "two_unequal")):
        where = torch.zeros(len(scene.logits), *scene.space, dtype=torch.bool)
        where[..., -3:] = True
        rest = scene.map(lambda x: x[..., :-3])
        for parameters in subject.settings():
            wanted, slope = subject.value_and_gradient(rest, **parameters)
            for label in (IGNORED, -1, -100) if way == "ignore_index" else (IGNORED,):
                ignoring, keywords = ignore(scene, where, way, label)
                keywords |= parameters
                named = f"{way}={label}" if way == "ignore_index" else "pixel_weight=0"
                on = f"{scene}, a strip ignored by {named}{given(parameters)}"
                got, gradient = subject.value_and_gradient(ignoring, **keywords)
                agree(got, wanted, on, "the value without the strip", **subject.exact)
                inside, outside = gradient[..., -3:].abs().max(), gradient[..., :-3]
                require(inside == 0, on, "no gradient in the strip", inside)
                agree(outside, slope, on, "the gradient without the strip", **subject.exact)
            for junk in (1e4, math.nan, math.inf):
                logits = scene.logits.clone()
                logits[..., -3:] = junk
                got, gradient = subject.value_and_gradient(ignoring.predict(logits), **keywords)
                with_junk = f"{on}, logits of {junk:g} there"
                agree(got, wanted, with_junk, "the value without the strip", **subject.exact)
                inside = gradient[..., -3:].abs().max()
                require(inside == 0, with_junk, "no gradient in the strip", inside)


def _check_image(subject: Subject, kind: str, way: str) -> None:
    """An image that is ignored as a whole is as good as not in the batch."""
    scene = subject.random(kind)
    ignoring, keywords = ignore(scene, _first_image(scene), way)
    for parameters in subject.settings():
        got = subject.value(ignoring, **keywords, **parameters)
        wanted = subject.value(scene.image(1), **parameters)
        on = f"{scene}, one of two images ignored by {way}{given(parameters)}"
        agree(got, wanted, on, "the other image alone", **subject.exact)


def _first_image(scene: Scene) -> Tensor:
    """Mark all pixels of the first image, (N, *space)."""
    count = len(scene.logits)
    return (torch.arange(count) == 0).view(-1, *[1] * len(scene.space)).expand(count, *scene.space)


def _check_scattered(subject: Subject, kind: str, way: str) -> None:
    """Scattered pixels, of every image another number, against the pixels that are left."""
    scene = subject.random(kind, count=3)
    share = torch.tensor([0.2, 0.5, 0.0]).view(3, *[1] * len(scene.space))
    where = torch.rand(3, *scene.space, generator=subject.generator(2)) < share
    label = IGNORED
    if way == "ignore_index" and kind == "multiclass":
        where, label = scene.truth == 2, 2  # a label that is also a class
    rest = [image.pick(~gone.flatten()) for image, gone in zip(scene.images(), where, strict=True)]
    counts = torch.tensor([float(image.pixels) for image in rest])
    values = torch.stack([subject.value(image) for image in rest])
    ignoring, keywords = ignore(scene, where, way, label)
    on = f"{scene}, {int(where.sum())} of {where.numel()} pixels ignored by {way}"
    weights = counts if subject.facts.unit == "pixel" else torch.ones(3)
    wanted = (values * weights).sum() / weights.sum()
    meaning = "the value of the pixels that are left"
    agree(subject.value(ignoring, **keywords), wanted, on, meaning, **subject.exact)
    if subject.has("aggregate"):
        parts = {n: torch.cat([getattr(r, n) for r in rest], -1) for n in ("logits", "target")}
        wanted = subject.value(rest[0].change(**parts))
        got = subject.value(ignoring, aggregate="batch", **keywords)
        agree(got, wanted, f"{on}, aggregate='batch'", meaning, **subject.exact)


def _check_channel(subject: Subject) -> None:
    """A multilabel channel that is ignored everywhere is as good as not there."""
    scene = subject.random("multilabel")
    channel = (torch.arange(CLASSES) == 1).view(1, CLASSES, *[1] * len(scene.space))
    ignoring, keywords = ignore(scene, channel.expand(scene.target.shape), "ignore_index")
    rest = scene.map(lambda x: x[:, [0, 2]])
    for parameters in subject.settings():
        got = subject.value(ignoring, **keywords, **parameters)
        wanted = subject.value(rest, **parameters)
        on = f"{scene}, channel 1 ignored everywhere{given(parameters)}"
        agree(got, wanted, on, "the value without the channel", **subject.exact)


def check_pixel_weight(subject: Subject) -> None:
    """A pixel of weight 2 counts as two pixels."""
    subject.need("pixel_weight")
    for kind in subject.kinds:
        scene = subject.random(kind)
        ones = torch.ones(len(scene.logits), *scene.space, dtype=scene.logits.dtype)
        got = subject.value(scene, pixel_weight=ones)
        agree(got, subject.value(scene), f"{scene}, weights 1", "no weights", **subject.exact)
        if subject.facts.spatial:  # two pixels would have other neighbours than one
            if subject.has("reduction") and subject.facts.unit == "pixel":
                one = subject.value(scene, reduction="none")
                two = subject.value(scene, reduction="none", pixel_weight=2 * ones)
                agree(two, 2 * one, f"{scene}, weights 2", "twice each value", **subject.exact)
            continue
        single = scene.image(0)
        weight = subject.pixel_weight(single)
        times = weight.flatten().long()
        repeated = single.pick(torch.arange(len(times)).repeat_interleave(times))
        for parameters in subject.settings():
            wanted = subject.value(repeated, **parameters)
            on = f"{single}, weights 0 to 3{given(parameters)}"
            for given_weight in (weight, weight.long()) if subject.strict else (weight,):
                got = subject.value(single, pixel_weight=given_weight, **parameters)
                agree(got, wanted, on, "every pixel repeated as often", **subject.exact)


def check_class_weight(subject: Subject) -> None:
    """Class weights make the mean over the classes a weighted one."""
    subject.need("class_weight", "reduction")
    for kind in subject.kinds:
        scene = subject.random(kind)
        weight = torch.tensor([0.5, 1.0, 3.0], dtype=scene.logits.dtype)[: scene.logits.shape[1]]
        options: list[dict[str, Any]] = [{}]
        if kind == "multiclass" and subject.has("include_background"):
            options += [{"include_background": False}]
        for option in options:
            each = subject.value(scene, reduction="none")
            part = slice(1 if option else 0, None)
            total = len(each) * weight[part].sum()
            wanted = (each[:, part] * weight[part]).sum() / total
            forms = {"a tensor": weight, "a list": weight.tolist(), "ten times that": 10 * weight}
            for form, class_weight in forms.items():
                got = subject.value(scene, class_weight=class_weight, **option)
                on = f"{scene}, class_weight={weight.tolist()} as {form}{given(option)}"
                agree(got, wanted, on, "the weighted mean over the classes", **subject.exact)
        if subject.has("pixel_weight"):
            half, keywords = ignore(scene, _first_image(scene), "pixel_weight")
            got = subject.value(half, class_weight=weight, **keywords)
            wanted = subject.value(scene.image(1), class_weight=weight)
            on = f"{scene}, class_weight={weight.tolist()}, one of two images ignored"
            agree(got, wanted, on, "the other image alone", **subject.exact)


def check_background(subject: Subject) -> None:
    """Without background class 0 leaves the mean, or it is an error."""
    subject.need("include_background", "reduction")
    without = {"include_background": False}
    for kind in subject.kinds:
        scene = subject.random(kind)
        if kind != "multiclass":
            call = functools.partial(subject.call, scene.logits, scene.target, **scene.keywords)
            on = f"{scene}{given(without)}"
            refused(subject, call, without, on, r"include_background.*False.*multiclass")
            continue
        for parameters in subject.settings():
            wanted = subject.value(scene, reduction="none", **parameters)[:, 1:]
            on = f"{scene}{given(without | parameters)}"
            got = subject.value(scene, reduction="none", **without, **parameters)
            agree(got, wanted, on, "the other classes as before", **subject.exact)
            got = subject.value(scene, **without, **parameters)
            agree(got, wanted.mean(), on, "the mean over the other classes", **subject.exact)


def check_absent(subject: Subject) -> None:
    """A class that the target lacks counts by the formula, not at all or as the worst."""
    subject.need("absent", "reduction")
    minimum, highest = subject.facts.minimum, subject.facts.value_range[1]
    for kind in subject.kinds:
        # one pixel of class 1: class 2 is in no image, and neither is its multilabel mask
        scene = subject.scene(kind, "empty" if kind == "binary" else "one_pixel")
        missing = scene.values.flatten(2).sum(2) == 0
        each = subject.value(scene, reduction="none")
        kept, on = each[~missing], f"{scene}, the absent class, absent"
        if subject.facts.empty_target == "costs":
            expected = f"more than {minimum:g} for its false positives"
            lowest = each[missing].min()
            require(lowest > minimum + 1e-6, f"{on}='smooth'", expected, lowest)
        wanted = kept.mean() if kept.numel() else torch.zeros_like(each.sum())
        got = subject.value(scene, absent="skip")
        agree(got, wanted, f"{on}='skip'", "the mean over the present classes", **subject.exact)
        got = subject.value(scene, absent="worst", reduction="none")
        agree(got[~missing], kept, f"{on}='worst'", "the present as before", **subject.exact)
        if math.isfinite(highest):
            wanted = torch.full_like(got[missing], highest)
            agree(got[missing], wanted, f"{on}='worst'", "the worst value")
        for absent in ("smooth", "skip", "worst"):
            perfect = scene.perfect(1e4)
            got = subject.value(perfect, absent=absent)
            wanted = torch.full_like(got, minimum)
            agree(got, wanted, f"{perfect}, {absent=}", "the minimum", atol=1e-9)
