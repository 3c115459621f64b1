"""The inputs of the battery: small drawn masks, the named predictions of them, random blobs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SIZE = 8  # side of the drawings
CLASSES = 3  # channels of multiclass and multilabel scenes
IGNORED = 255  # label of ignored pixels

# Objects of class 1 and 2 on background; binary targets do not tell the two apart. The corners at
# the upper right and the lower left are free, except in "full", for objects that are not there.
DRAWINGS: dict[str, str] = {
    "empty": "........ ........ ........ ........ ........ ........ ........ ........",
    "full": "11111111 11111111 11111111 11111111 11111111 11111111 11111111 11111111",
    "one_pixel": "........ ........ ........ ....1... ........ ........ ........ ........",
    "thin_line": "........ ........ ........ ........ .111222. ........ ........ ........",
    "border": "11...... 11...... 11...... 1....... ........ ........ ........ ...222..",
    "two_unequal": "........ .1111... .1111... .1111... .1111... ........ .....22. ........",
    "ring": "........ ........ ..11222. ..1...2. ..1...2. ..1...2. ..11222. ........",
    "ignored_strip": "......xx .1111.xx .1111.xx .1111.xx .1111.xx ......xx .....2xx ......xx",
}


def drawing(name: str) -> Tensor:
    """Return a drawn mask, (8, 8): 0 background, 1 and 2 objects, -1 ignored."""
    values = {".": 0, "1": 1, "2": 2, "x": -1}
    return torch.tensor([[values[pixel] for pixel in row] for row in DRAWINGS[name].split()])


def predictions(truth: Tensor) -> dict[str, Tensor]:
    """Return the named predictions of drawings (N, 8, 8), as label maps."""
    background = truth <= 0
    neighbours = _neighbours(truth.clamp_min(0))
    beside = functools.reduce(torch.maximum, neighbours)
    within = functools.reduce(torch.minimum, neighbours) > 0
    several = (truth == 1).flatten(1).any(1).view(-1, 1, 1)
    false_object = truth.clone()
    false_object[:, :2, -2:] = false_object[:, -2:, :2] = 1
    wrong_pixel = truth.clone()
    wrong_pixel[:, 0, -1] = background[:, 0, -1].long()
    return {
        "perfect": truth,
        "all_background": torch.zeros_like(truth),
        "all_foreground": torch.ones_like(truth),
        "shifted": truth.roll(1, -1),
        "dilated": torch.where(background, beside, truth),
        "eroded": torch.where(within, truth, 0),
        "half_missing": torch.where(torch.arange(truth.shape[-1]) < 3, 0, truth),
        "small_missing": torch.where((truth == 2) & several, 0, truth),
        "false_object": false_object,
        "one_wrong_pixel": wrong_pixel,
    }


def _neighbours(truth: Tensor) -> list[Tensor]:
    """Shift label maps by one pixel in the four directions; the border is repeated."""
    return [
        torch.cat([truth[:, :1], truth[:, :-1]], 1),
        torch.cat([truth[:, 1:], truth[:, -1:]], 1),
        torch.cat([truth[..., :1], truth[..., :-1]], 2),
        torch.cat([truth[..., 1:], truth[..., -1:]], 2),
    ]


# The names that `LossInfo.blind_to` may use, alone or as "<prediction> on <drawing>". Inverted is
# wrong at every pixel; uniform has the logit 0 everywhere.
PREDICTIONS = (*predictions(drawing("empty").unsqueeze(0)), "inverted", "uniform")


def as_truth(labels: Tensor, kind: str) -> Tensor:
    """Turn drawings (N, *space) into labels, or into three overlapping masks (N, 3, *space).

    The masks are the objects, their part of class 2, and the objects mirrored. Ignored is 255.
    """
    if kind == "multilabel":
        truth = torch.stack([labels > 0, labels == 2, (labels > 0).flip(-1)], 1).long()
        labels = labels.unsqueeze(1)
    else:
        truth = labels if kind == "multiclass" else (labels > 0).long()
    return torch.where(labels < 0, IGNORED, truth)


def as_values(truth: Tensor, kind: str) -> Tensor:
    """Turn labels or masks into zeros and ones of the logits' shape, float64."""
    if kind == "multiclass":
        return torch.stack([truth == label for label in range(CLASSES)], 1).double()
    return (truth == 1 if kind == "multilabel" else (truth == 1).unsqueeze(1)).double()


def wrong_everywhere(truth: Tensor, kind: str) -> Tensor:
    """Return labels or masks that are wrong at every pixel."""
    return (truth + 1) % CLASSES if kind == "multiclass" else 1 - truth


def spread(labels: Tensor, dims: int) -> Tensor:
    """Give drawings (N, 8, 8) another number of space axes: flattened, or repeated in depth."""
    if dims == 1:
        return labels.flatten(1)
    for _ in range(dims - 2):
        labels = labels.unsqueeze(1).expand(-1, 4, *labels.shape[1:])
    return labels.contiguous()


def blobs(kind: str, count: int, space: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return random labels or masks in which neighbours tend to agree."""
    noise = torch.randn(count, CLASSES, *space, generator=generator, dtype=torch.float64)
    for axis in range(2, noise.ndim):
        noise = noise + noise.roll(1, axis) + noise.roll(-1, axis)
    if kind == "multiclass":
        return noise.argmax(1)
    return (noise > 0).long() if kind == "multilabel" else (noise[:, 0] > noise[:, 1]).long()


@dataclass(frozen=True)
class Scene:
    """One input of a loss.

    Attributes:
        name: what is to be seen.
        kind: "binary", "multiclass" or "multilabel".
        logits: (N, C, \\*space).
        truth: labels (N, \\*space), or multilabel masks (N, C, \\*space).
        target: the truth in the form that the loss takes.
        keywords: parameters that belong to this target.
    """

    name: str
    kind: str
    logits: Tensor
    truth: Tensor
    target: Tensor
    keywords: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}, {self.kind}"

    @property
    def values(self) -> Tensor:
        """The truth as zeros and ones of the logits' shape."""
        return as_values(self.truth, self.kind).to(self.logits.dtype)

    def change(self, **fields: Any) -> Scene:
        """Return the scene with other fields."""
        return dataclasses.replace(self, **fields)

    def predict(self, logits: Tensor, name: str | None = None) -> Scene:
        """Return the same truth under another prediction."""
        if self.target.is_floating_point():  # losses may want both in one precision
            return self.change(
                logits=logits, target=self.target.to(logits.dtype), name=name or self.name
            )
        return self.change(logits=logits, name=name or self.name)

    def perfect(self, scale: float) -> Scene:
        """Return the right prediction, with confidence."""
        name = f"prediction 'perfect' of {self.name}"
        return self.predict(scale * (2 * self.values - 1), name)

    def map(self, move: Callable[[Tensor], Tensor], name: str | None = None) -> Scene:
        """Move the pixels or images of logits and target alike."""
        logits, truth, target = map(move, (self.logits, self.truth, self.target))
        return self.change(logits=logits, truth=truth, target=target, name=name or self.name)

    def image(self, index: int) -> Scene:
        """Return a single image of the batch."""
        cut = slice(index, index + 1)
        return self.map(lambda x: x[cut], f"{self.name}, image {index}")

    def images(self) -> list[Scene]:
        """Return every image of the batch."""
        return [self.image(index) for index in range(len(self.logits))]

    def side_by_side(self) -> Scene:
        """Join the images into one, along the last axis."""
        return self.map(lambda x: torch.cat(list(x.split(1)), -1))

    def pick(self, pixels: Tensor) -> Scene:
        """Return some pixels in a row: a mask or indices, which may repeat themselves."""
        dims = self.logits.ndim - 2
        return self.map(lambda x: x.flatten(-dims)[..., pixels])

    def shape(self, space: Sequence[int]) -> Scene:
        """Give the pixels another shape."""
        dims = self.logits.ndim - 2
        name = f"{self.name} of shape {tuple(space)}"
        return self.map(lambda x: x.reshape(*x.shape[: x.ndim - dims], *space), name)

    @property
    def space(self) -> tuple[int, ...]:
        """The shape of an image."""
        return tuple(self.logits.shape[2:])

    @property
    def pixels(self) -> int:
        """How many pixels an image has."""
        return math.prod(self.space)
