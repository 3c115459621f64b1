"""Promises about space and order: dimensions, permutations, mirrors and turns."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from .form import refused
from .promise import agree, number, require
from .scenes import Scene
from .subject import Subject

SHAPES = {1: (64,), 2: (8, 8), 3: (4, 4, 4), 4: (2, 2, 4, 4)}  # of 64 pixels


def check_dimensions(subject: Subject) -> None:
    """The same pixels in 1-D, 2-D or 3-D cost the same."""
    declared = subject.facts.space_dims
    for kind in subject.kinds:
        flat = subject.random(kind, space=SHAPES[1])
        wanted = None
        for axes, space in SHAPES.items():
            scene = flat.shape(space)
            if declared is not None and axes not in declared:
                call = functools.partial(subject.call, scene.logits, scene.target)
                pattern = rf"logits.*\b{axes}\b.*space"
                refused(subject, call, scene.keywords, f"{axes} space axes, {kind}", pattern)
                continue
            value, gradient = subject.value_and_gradient(scene)
            fine = value.isfinite().all() and gradient.isfinite().all()
            require(fine, scene, "a finite value and gradient", f"{number(value)}")
            if not subject.facts.spatial:
                wanted = value if wanted is None else wanted
                agree(value, wanted, scene, "the same pixels in another shape", **subject.exact)
        for space in ((1,) * subject.dims, (*[1] * (subject.dims - 1), 5)):
            scene = subject.random(kind, space=space)
            value, gradient = subject.value_and_gradient(scene)
            fine = value.isfinite().all() and gradient.isfinite().all()
            on = f"{scene}, images of shape {space}"
            require(fine, on, "a finite value and gradient", f"{number(value)}")


def check_permutations(subject: Subject) -> None:
    """The order of images, of classes and (unless spatial) of pixels does not matter."""
    spatial, same = subject.facts.spatial, "the same as in the first order"
    for kind in subject.kinds:
        scene = subject.random(kind, count=3)
        value = subject.value(scene)
        mixed = scene.map(lambda x: x[[2, 0, 1]], f"{scene.name}, images reordered")
        agree(subject.value(mixed), value, mixed, same, **subject.exact)
        order = torch.randperm(scene.pixels, generator=subject.generator(8))
        mixed = scene.pick(order).shape(scene.space)
        got, on = subject.value(mixed), f"{scene}, pixels shuffled"
        hint = subject.hint("spatial", not spatial)
        if spatial:
            differs = not torch.allclose(got, value, **subject.exact)
            require(differs, on, "another value: stated is spatial=True", got, hint)
        else:
            agree(got, value, on, same, **subject.exact, hint=hint)
        for base in (scene, subject.scene(kind, "one_pixel")) if kind != "binary" else ():
            _check_classes(subject, base)


def _check_classes(subject: Subject, scene: Scene) -> None:
    """Renumber the classes; where the background has a role of its own, only the others."""
    equal = subject.facts.family in ("distribution", "region", "compound")
    orders = ([2, 0, 1], [1, 0, 2]) if equal or scene.kind == "multilabel" else ([0, 2, 1],)
    wanted = subject.value(scene)
    for order in orders:
        if scene.kind == "multiclass":
            truth = torch.tensor(order).argsort()[scene.truth]
        else:
            truth = scene.truth[:, order]
        name = f"{scene.name}, classes renumbered"
        renumbered = subject.build(scene.kind, truth, name, scene.logits[:, order].contiguous())
        meaning = "the same as with the first numbers"
        agree(subject.value(renumbered), wanted, renumbered, meaning, **subject.exact)


def check_symmetries(subject: Subject) -> None:
    """Mirrored and turned images cost the same."""
    axes = range(-subject.dims, 0)
    moves: dict[str, Callable[[Tensor], Tensor]] = {
        f"mirrored along axis {axis}": functools.partial(torch.flip, dims=(axis,)) for axis in axes
    }
    for first in axes:
        for second in range(first + 1, 0):
            turn = functools.partial(torch.rot90, k=1, dims=(first, second))
            moves[f"turned by 90 degrees in axes {first} and {second}"] = turn
    for kind in subject.kinds:
        for scene in (subject.random(kind), subject.scene(kind, "two_unequal")):
            wanted = subject.value(scene)
            for name, move in moves.items():
                moved = scene.map(move, f"{scene.name}, {name}").map(Tensor.contiguous)
                agree(subject.value(moved), wanted, moved, "the same as before", **subject.exact)
