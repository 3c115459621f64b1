"""Find the edge cases of segmentation in any image with a mask, or make them by a minimal edit.

``find_chunks`` considers every window of the picture. Sums over all windows (of the mask, its rim,
its Euler characteristic) tell at once which windows can have the property in question; the best of
those are then looked at one by one. What the picture does not have is made from a real crop by the
least edit that does it. ``Chunk.how`` says which of the two it was.

The public face is ``lab.chunks``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from seglosses_nb.lab.data import Labels, Sample, load, noisy, objects, shift

CHUNKS: dict[str, str] = {
    "empty": "no foreground at all",
    "full": "one foreground class on every pixel",
    "one_pixel": "exactly one foreground pixel",
    "thin_line": "one object of five or more pixels that is nowhere two pixels wide",
    "border": "one object that the crop's rim cuts off",
    "two_unequal": "two objects, one at least three times as large as the other",
    "ring": "one object with one hole of at least four pixels",
    "ignored_strip": "a part of the pixels carries no label",
    "label_noise": "the label is wrong along the objects' outlines; predictions know the truth",
    "saturated": "every logit is ±10 000: sigmoid and softmax are 0 or 1 exactly",
}
"""The chunks by name, in the order in which they are shown, each with the property it has."""

SATURATED = 1e4
"""The largest logit for which every loss promises finite values and gradients."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """One edge case: a small image with the label that a loss gets, and the truth behind it.

    Attributes:
        name: the case, a key of ``CHUNKS``.
        image: float32 in [0, 1], shape (rows, columns).
        target: int64 labels for the loss; pixels without a label carry ``ignore_index``.
        truth: int64 labels that predictions start from. Differs from ``target`` where that is
            ignored or wrong on purpose.
        num_classes: number of labels, background included.
        ignore_index: the label that does not count, or ``None`` where every label does.
        origin: (row, column) of the crop in the picture.
        found: whether the crop is exactly as in the picture.
        how: where it was found, or from where and by which edit it was made.
        description: the property that gives it its name.
        instances: int64 object labels of the crop, where the picture has them.
        confidence: logit magnitude of every prediction on this chunk; ``None`` leaves it open.
    """

    name: str
    image: NDArray[np.float32]
    target: Labels
    truth: Labels
    num_classes: int
    ignore_index: int | None
    origin: tuple[int, int]
    found: bool
    how: str
    description: str
    instances: Labels | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        # Chunks are cached and shared; nobody changes them in place.
        for array in (self.image, self.target, self.truth, self.instances):
            if array is not None:
                array.flags.writeable = False

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return the image as (1, 1, rows, columns) and the target as (1, rows, columns)."""
        return torch.tensor(self.image)[None, None], torch.tensor(self.target)[None]


# ------------------------------------------------------------------ finding


def find_chunks(
    image: Any,
    mask: Any,
    *,
    size: int = 32,
    names: Iterable[str] | None = None,
    num_classes: int | None = None,
    instances: Any = None,
    ignore_index: int = 255,
    seed: int = 0,
) -> dict[str, Chunk]:
    """Find the named edge cases in an image with a mask, or make them by a minimal edit.

    "Foreground" is every label above 0 and "object" a connected component of it, diagonals
    included; a chunk's objects are those of the crop. Every ``size`` × ``size`` window without
    ignored pixels is considered. Chosen is, among those with the property of the name:

    - ``empty``: the one with the most texture. *Else* the foreground is cleared.
    - ``full``: the one with the most texture, if need be in a smaller square, down to 4 × 4.
      *Else* the most common foreground class fills it.
    - ``one_pixel``: a speck, the farther inside the better, or a pixel of an object that pokes
      into the crop. *Else* all but one pixel of an object are cleared.
    - ``thin_line``: the longest, away from the rim and without forks. *Else* all but one row of
      an object are cleared.
    - ``border``: a long cut, on one side of the rim only, with about a quarter of foreground.
      *Else* a whole object is moved to the left until the rim cuts it.
    - ``two_unequal``: large ones, off the rim. *Else* a small disc is drawn beside an object.
    - ``ring``: the one with the largest hole. *Else* an object's inside, more than 2 px from its
      outline, is cleared.
    - ``ignored_strip``: 5 to 60 % of the pixels carry ``ignore_index``. *Else* the left quarter
      of the columns is marked so, in a window with foreground in and beside it.
    - ``label_noise``: is never found, because nobody can tell; in a window with whole objects,
      half of the boundary pixels are given a neighbour's label.
    - ``saturated``: a window with whole objects; it is the logits that are extreme.

    Where a mask has no objects to start from, one is drawn, and ``Chunk.how`` says so.

    Args:
        image: (rows, columns), or with a last axis of colours, which are averaged. 8- and
            16-bit values are divided by 255 and 65535; what then leaves [0, 1] is stretched to it.
        mask: integer or bool labels, (rows, columns); 0 is background.
        size: side of the chunks in pixels, at least 16, at most the image's shorter side.
        names: which chunks (keys of ``CHUNKS``), default all.
        num_classes: number of labels, background included; default the largest label + 1, at
            least 2.
        instances: object labels; if given, a chunk's objects are single instances too.
        ignore_index: label of pixels that do not count, in the mask and in ``ignored_strip``.
        seed: for the label noise.

    Returns:
        The chunks by name, in the order of ``CHUNKS``.
    """
    scene = _Scene(image, mask, size, num_classes, instances, ignore_index, seed)
    chosen = check_names("find_chunks", "names", names, CHUNKS)
    return {name: _MAKERS[name](scene) for name in chosen}


def chunks_of(
    sample: str | Sample = "nuclei", *, size: int = 32, names: Iterable[str] | None = None
) -> dict[str, Chunk]:
    """Find the chunks of a sample, or of a source by its name (``lab.data.SOURCES``)."""
    if isinstance(sample, str):
        return dict(_chunks_of_source(sample, size, None if names is None else tuple(names)))
    if sample.mask.ndim != 2:
        raise ValueError(
            f"chunks_of: {sample.name} has shape {sample.mask.shape}, wanted a 2-D sample; "
            "take one slice of the volume"
        )
    return find_chunks(
        sample.image,
        sample.mask,
        size=size,
        names=names,
        num_classes=sample.num_classes,
        instances=sample.instances,
    )


@lru_cache(maxsize=32)
def _chunks_of_source(
    name: str, size: int, names: tuple[str, ...] | None
) -> tuple[tuple[str, Chunk], ...]:
    return tuple(chunks_of(load(name), size=size, names=names).items())


class _Scene:
    """An image with its mask, and sums over all windows of it."""

    def __init__(
        self,
        image: Any,
        mask: Any,
        size: int,
        num_classes: int | None,
        instances: Any,
        ignore_index: int,
        seed: int,
    ) -> None:
        mask = np.asarray(mask)
        if mask.dtype != bool and not np.issubdtype(mask.dtype, np.integer):
            raise TypeError(
                f"find_chunks: mask has dtype {mask.dtype}, wanted integer or bool labels; "
                "for probabilities take a threshold or the argmax first"
            )
        if mask.ndim != 2:
            raise ValueError(
                f"find_chunks: mask has shape {mask.shape}, wanted (rows, columns); "
                "take one image of a batch, one slice of a volume"
            )
        self.image = _as_grey(image, mask.shape)
        self.mask: Labels = mask.astype(np.int64)
        if size != int(size) or not 16 <= size <= min(mask.shape):
            raise ValueError(
                f"find_chunks: size is {size}, wanted a whole number from 16 to the image's "
                f"shorter side, {min(mask.shape)}"
            )
        self.size = int(size)
        values = np.unique(self.mask)
        if set(values.tolist()) <= {0, 255} and 255 in values and ignore_index == 255:
            raise ValueError(
                "find_chunks: mask holds no label but 255 (and 0), which is the ignore_index; "
                "wanted labels 0, 1, …; divide a 0/255 mask by 255"
            )
        self.void = self.mask == ignore_index
        labels = values[values != ignore_index]
        highest = int(labels.max(initial=0))
        self.num_classes = max(highest + 1, 2) if num_classes is None else int(num_classes)
        if labels.min(initial=0) < 0 or highest >= self.num_classes:
            bad = int(labels.min(initial=0)) if labels.min(initial=0) < 0 else highest
            raise ValueError(
                f"find_chunks: mask holds the label {bad}, wanted labels from 0 to "
                f"{self.num_classes - 1} (num_classes is {self.num_classes}) or ignore_index "
                f"{ignore_index}"
            )
        if 0 <= ignore_index < self.num_classes:
            raise ValueError(
                f"find_chunks: ignore_index is {ignore_index}, which is one of the "
                f"{self.num_classes} classes; wanted a label outside, such as 255 or -1"
            )
        self.ignore_index = int(ignore_index)
        self.instances: Labels | None = None
        if instances is not None:
            self.instances = np.asarray(instances).astype(np.int64)
            if self.instances.shape != self.mask.shape:
                raise ValueError(
                    f"find_chunks: instances has shape {self.instances.shape} but the mask has "
                    f"{self.mask.shape}; wanted one object label for each pixel"
                )
        self.seed = seed
        self.front = (self.mask > 0) & ~self.void
        counts = np.bincount(self.mask[self.front], minlength=2)
        self.common = int(counts[1:].argmax()) + 1
        self.area = self.sums(self.front)
        self.clear = self.sums(self.void) == 0

    def sums(self, values: np.ndarray, rows: int = 0, columns: int = 0) -> np.ndarray:
        """Sum over every window of ``rows`` × ``columns`` (default: the chunk's size)."""
        rows, columns = rows or self.size, columns or self.size
        dtype = np.float64 if np.issubdtype(values.dtype, np.floating) else np.int64
        total = np.zeros((values.shape[0] + 1, values.shape[1] + 1), dtype)
        total[1:, 1:] = values.astype(dtype).cumsum(0).cumsum(1)
        across = total[:, columns:] - total[:, :-columns]
        return across[rows:] - across[:-rows]

    def texture(self) -> np.ndarray:
        """Variance of the image in every window."""
        image = self.image.astype(np.float64)
        count = self.size**2
        return self.sums(image**2) / count - (self.sums(image) / count) ** 2

    def sides(self) -> np.ndarray:
        """Foreground pixels on each side of every window's rim: (4, rows, columns)."""
        row, column = self.sums(self.front, rows=1), self.sums(self.front, columns=1)
        last = self.size - 1
        return np.stack([row[:-last], row[last:], column[:, :-last], column[:, last:]])

    def euler(self) -> np.ndarray:
        """Objects minus holes in every window, with 8-neighbours connected.

        Pixels - pairs + triples - quadruples of mutual neighbours: the Euler characteristic of
        the foreground's clique complex, a sum of local terms and so one box sum for all windows.
        """
        f, n = self.front, self.size
        block = f[:-1, :-1].astype(int) + f[:-1, 1:] + f[1:, :-1] + f[1:, 1:]
        diagonal = (f[:-1, :-1] & f[1:, 1:]).astype(int) + (f[:-1, 1:] & f[1:, :-1])
        local = -diagonal + np.choose(block, [0, 0, 0, 1, 4]) - (block == 4)
        return (
            self.area
            - self.sums(f[:, :-1] & f[:, 1:], n, n - 1)
            - self.sums(f[:-1] & f[1:], n - 1, n)
            + self.sums(local, n - 1, n - 1)
        )

    def holes(self) -> np.ndarray:
        """Pixels of the picture's holes in every window: a hole of a crop is one of the picture."""
        parts, _ = ndimage.label(np.pad(~self.front, 1, constant_values=True))
        inside = (parts > 0) & (parts != parts[0, 0])
        return self.sums(inside[1:-1, 1:-1])

    def centred(self) -> np.ndarray:
        """Distance of the foreground's centre of mass from each window's centre, in pixels."""
        rows, columns = np.indices(self.mask.shape)
        area = np.maximum(self.area, 1)
        at_row, at_column = np.indices(self.area.shape)
        middle = (self.size - 1) / 2
        row = self.sums(rows * self.front) / area - at_row - middle
        column = self.sums(columns * self.front) / area - at_column - middle
        return np.hypot(row, column)

    def classes(self) -> np.ndarray:
        """Number of different labels in every window."""
        present = [self.sums(self.mask == label) > 0 for label in range(self.num_classes)]
        return np.sum(present, axis=0)

    def window(self, at: tuple[int, int]) -> tuple[slice, slice]:
        """Slices of the window whose first pixel is ``at``."""
        return slice(at[0], at[0] + self.size), slice(at[1], at[1] + self.size)

    def best(
        self,
        candidate: np.ndarray,
        score: np.ndarray,
        quality: Callable[[np.ndarray, Labels | None], float] = lambda front, instances: 1.0,
        tries: int = 1000,
    ) -> tuple[int, int] | None:
        """Find the window of the best ``quality`` among the candidates, the best scores first.

        ``quality`` looks at the crop itself and returns 0 for "no". Windows that show the same
        pixels in another frame are looked at once. After ``tries`` the best so far will do; only
        if there is none yet does the search go on to the last candidate.
        """
        where = np.flatnonzero(candidate & self.clear)
        order = where[np.argsort(-score.ravel()[where], kind="stable")]
        found, best, seen = None, 0.0, set()
        for flat in order:
            at = tuple(int(i) for i in np.unravel_index(flat, candidate.shape))
            crop = self.front[self.window(at)]
            rows, columns = np.nonzero(crop)
            shape = (
                rows.size,
                int(rows.sum()) + at[0] * rows.size,
                columns.sum() + at[1] * rows.size,
            )
            if rows.size and shape in seen:
                continue
            seen.add(shape)
            of_crop = None if self.instances is None else self.instances[self.window(at)]
            value = quality(crop, of_crop)
            if value > best:
                found, best = at, value
            if found is not None and len(seen) >= tries:
                break
        return found

    def chunk(
        self,
        name: str,
        at: tuple[int, int],
        edit: str = "",
        *,
        truth: Labels | None = None,
        target: Labels | None = None,
        note: str = "",
        confidence: float | None = None,
    ) -> Chunk:
        """Cut the chunk at a window; ``edit`` says what was changed, ``note`` adds to a find."""
        window = self.window(at)
        original = self.mask[window].copy()
        truth = np.where(original == self.ignore_index, 0, original) if truth is None else truth
        if target is None:
            target = truth if edit else original
        ends = (window[0].stop - 1, window[1].stop - 1)
        place = f"rows {at[0]} to {ends[0]}, columns {at[1]} to {ends[1]}"
        how = f"made from {place}: {edit}" if edit else f"found at {place}{note and '; ' + note}"
        ignored = bool((target == self.ignore_index).any())
        return Chunk(
            name=name,
            image=self.image[window].copy(),
            target=target.copy(),
            truth=truth.copy(),
            num_classes=self.num_classes,
            ignore_index=self.ignore_index if ignored else None,
            origin=at,
            found=not edit,
            how=how,
            description=CHUNKS[name],
            instances=None if self.instances is None or edit else self.instances[window].copy(),
            confidence=confidence,
        )

    def labels(self, at: tuple[int, int]) -> Labels:
        """Return the true labels of a window, ignored pixels as background, free to be edited."""
        return np.where(self.void, 0, self.mask)[self.window(at)]

    def single_object(self) -> tuple[tuple[int, int], Labels, str]:
        """Return a window, its labels reduced to one object off the rim, and the edit so far."""
        whole = (self.area > 0) & (self.sides().sum(axis=0) == 0)
        at = self.best(whole, self.area - 2.0 * self.centred())
        edit = ""
        if at is None:
            at = self.densest()
            edit = "all outside a disc in the middle cleared"
        labels = self.labels(at)
        if edit:
            labels = np.where(self.disc(0.32 * self.size) > 0, labels, 0)
        parts, count = objects(labels)
        if count == 0:
            return at, self.disc(self.size / 5), "a disc drawn, for want of an object"
        if count > 1:
            largest = np.bincount(parts.ravel())[1:].argmax() + 1
            labels = np.where(parts == largest, labels, 0)
            edit = f"{edit}, all but the largest object cleared".removeprefix(", ")
        return at, labels, edit

    def densest(self) -> tuple[int, int]:
        """Return the window with the most foreground."""
        at = self.best(np.ones_like(self.clear), self.area.astype(float), tries=1)
        # Every window touches an ignored pixel: take the one with the most foreground anyway.
        flat = int(self.area.argmax())
        return at or tuple(int(i) for i in np.unravel_index(flat, self.area.shape))

    def disc(self, radius: float, centre: Sequence[float] | None = None) -> Labels:
        """Return labels with one disc of the most common class."""
        rows, columns = np.indices((self.size, self.size))
        row, column = centre or ((self.size - 1) / 2,) * 2
        return np.where(np.hypot(rows - row, columns - column) <= radius, self.common, 0)


def _as_grey(image: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    grey = np.asarray(image)
    if grey.dtype in (np.uint8, np.uint16):
        grey = grey / np.iinfo(grey.dtype).max
    grey = grey.astype(np.float32)
    if grey.ndim == 3 and grey.shape[:2] == shape:
        grey = grey.mean(axis=2)
    if grey.shape != shape:
        raise ValueError(
            f"find_chunks: image has shape {np.shape(image)} but the mask has {shape}; wanted "
            "(rows, columns) of the same size, or colours on a last axis"
        )
    if not np.isfinite(grey).all():
        raise ValueError("find_chunks: image holds NaN or infinite values, wanted finite ones")
    low, high = float(grey.min()), float(grey.max())
    if low < 0 or high > 1:
        grey = (grey - low) / max(high - low, np.finfo(np.float32).tiny)
    return grey


# The properties, on the crop's foreground (and instances). Each returns 0 for "no".


def _areas(front: np.ndarray) -> NDArray[np.int64]:
    return np.bincount(objects(front)[0].ravel())[1:]


def _one_instance_each(front: np.ndarray, instances: Labels | None) -> bool:
    """Whether every connected component of the crop is one instance."""
    if instances is None:
        return True
    return np.unique(instances[front]).size == objects(front)[1]


def _hole(front: np.ndarray) -> int:
    """Area of the only hole of the only object; 0 if there are more objects or holes, or none."""
    if objects(front)[1] != 1:
        return 0
    # The background is connected through sides only: diagonals belong to the foreground.
    outside, count = ndimage.label(~np.pad(front, 1))
    return int((outside == 2).sum()) if count == 2 else 0


def _is_thin(front: np.ndarray) -> bool:
    block = front[:-1, :-1] & front[:-1, 1:] & front[1:, :-1] & front[1:, 1:]
    return not block.any()


def _forks(front: np.ndarray) -> int:
    """Count the pixels from which three or more arms leave: gaps between arms all around them."""
    padded = np.pad(front, 1).astype(int)
    around = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    rows, columns = front.shape
    ring = np.stack([padded[r : r + rows, c : c + columns] for r, c in around])
    arms = (np.roll(ring, -1, axis=0) > ring).sum(axis=0)
    return int((front & (arms >= 3)).sum())


def _empty(scene: _Scene) -> Chunk:
    at = scene.best(scene.area == 0, scene.texture(), tries=1)
    if at is not None:
        return scene.chunk("empty", at)
    at = scene.best(scene.area >= 0, -scene.area.astype(float), tries=1) or (0, 0)
    front = int((scene.labels(at) > 0).sum())
    return scene.chunk(
        "empty",
        at,
        f"its {front} foreground pixels cleared",
        truth=np.zeros((scene.size, scene.size), np.int64),
    )


def _full(scene: _Scene) -> Chunk:
    for side in range(scene.size, 3, -1):
        smaller = _resized(scene, side)
        full = np.zeros(smaller.area.shape, bool)
        for label in range(1, scene.num_classes):
            full |= smaller.sums(scene.mask == label) == side**2
        if full.any():
            at = smaller.best(full, smaller.texture(), tries=1)
            note = (
                "" if side == scene.size else f"no larger square of one class than {side} × {side}"
            )
            return smaller.chunk("full", at, note=note)
    at = scene.densest()
    missing = int((scene.labels(at) != scene.common).sum())
    return scene.chunk(
        "full",
        at,
        f"{missing} pixels set to class {scene.common}",
        truth=np.full((scene.size, scene.size), scene.common, np.int64),
    )


def _one_pixel(scene: _Scene) -> Chunk:
    rows, columns = np.indices(scene.mask.shape)
    at_row, at_column = np.indices(scene.area.shape)
    row = scene.sums(rows * scene.front) - at_row
    column = scene.sums(columns * scene.front) - at_column
    last = scene.size - 1
    near, far = (np.minimum(i, last - i) for i in (row, column))
    near, far = np.minimum(near, far), np.maximum(near, far)
    # Not at the right rim, so that a prediction shifted to the right still shows.
    score = near * scene.size + far - (last - column < 4) * scene.size / 2
    at = scene.best(scene.area == 1, score, tries=1)
    if at is not None:
        on_rim = near[at] == 0
        return scene.chunk(
            "one_pixel",
            at,
            note="an object pokes into the crop by one pixel" if on_rim else "a speck",
        )
    at, labels, _ = scene.single_object()
    places = np.argwhere(labels > 0)
    middle = places[np.hypot(*(places - places.mean(axis=0)).T).argmin()]
    keep = np.zeros_like(labels)
    keep[tuple(middle)] = labels[tuple(middle)]
    had = int((scene.labels(at) > 0).sum())
    edit = "all foreground but one pixel cleared" if had else "one pixel drawn"
    return scene.chunk("one_pixel", at, edit, truth=keep)


def _thin_line(scene: _Scene) -> Chunk:
    n, f = scene.size, scene.front
    blocks = scene.sums(f[:-1, :-1] & f[:-1, 1:] & f[1:, :-1] & f[1:, 1:], n - 1, n - 1)
    inner = scene.sums(f, n - 2, n - 2)[1:-1, 1:-1]

    def quality(front: np.ndarray, instances: Labels | None) -> float:
        one = objects(front)[1] == 1 and _one_instance_each(front, instances)
        inside = front[1:-1, 1:-1].sum()
        return float(front.sum() + 4 * inside) * one / (1 + 10 * _forks(front))

    at = scene.best(
        (blocks == 0) & (scene.area >= 5) & (scene.euler() == 1),
        2.0 * inner + scene.area,
        quality,
        tries=400,
    )
    if at is not None:
        on_rim = inner[at] == 0
        note = "the outermost pixels of an object along the rim" if on_rim else ""
        return scene.chunk("thin_line", at, note=note)
    at, labels, edit = scene.single_object()
    front = labels > 0
    row = int(front.sum(axis=1).argmax())
    line = np.zeros_like(labels)
    runs, _ = ndimage.label(front[row])
    run = runs == np.bincount(runs)[1:].argmax() + 1
    if run.sum() >= 5:
        line[row] = np.where(run, labels[row], 0)
        edit = "all but one row of an object cleared"
    else:
        line[scene.size // 2, scene.size // 4 : 3 * scene.size // 4] = scene.common
        edit = "everything cleared and a line drawn"
    return scene.chunk("thin_line", at, edit, truth=line)


def _border(scene: _Scene) -> Chunk:
    sides = scene.sides()
    touched = (sides > 0).sum(axis=0)
    share = scene.area / scene.size**2
    # A cut right through a disc is as long as the square root of its area, and more.
    cut = np.minimum(sides.sum(axis=0) / np.maximum(np.sqrt(scene.area), 1), 1)

    def quality(front: np.ndarray, instances: Labels | None) -> float:
        return float(objects(front)[1] == 1 and _one_instance_each(front, instances))

    at = scene.best(
        (touched >= 1) & (touched <= 3) & (share >= 0.01) & (share <= 0.7),
        cut - (touched - 1.0) - np.abs(share - 0.25),
        quality,
        tries=300,
    )
    if at is not None:
        return scene.chunk("border", at)
    at, labels, edit = scene.single_object()
    # Half of the object leaves the crop to the left.
    columns = np.flatnonzero((labels > 0).any(axis=0))
    middle = int(columns[columns.size // 2])
    moved = shift(labels, (0, -middle)) if middle else labels
    parts, count = objects(moved)
    if count > 1:
        at_rim = np.bincount(parts[:, 0], minlength=count + 1)[1:]
        moved = np.where(parts == at_rim.argmax() + 1, moved, 0)
    edit = f"{edit}, the object moved to the left until the rim cut it".removeprefix(", ")
    return scene.chunk("border", at, edit, truth=moved)


def _two_unequal(scene: _Scene) -> Chunk:
    rim = scene.sides().sum(axis=0)

    def quality(front: np.ndarray, instances: Labels | None) -> float:
        areas = np.sort(_areas(front))
        if areas.size != 2 or areas[0] < 4 or areas[1] < 3 * areas[0]:
            return 0.0
        # Large objects, the smaller one not tiny, and as little at the rim as can be.
        at_rim = front.sum() - front[1:-1, 1:-1].sum()
        worth = areas.sum() + 10.0 * min(areas[0], 40) - 8.0 * at_rim
        return max(worth, 1.0) * _one_instance_each(front, instances)

    euler = scene.euler()
    # Two objects, or two of which at least one has a hole.
    two = (euler == 2) | ((euler < 2) & (scene.holes() > 0))
    score = scene.area - 4.0 * scene.centred() - 100.0 * (euler < 2)
    at = scene.best(two & (rim == 0), score, quality, tries=500)
    if at is None:
        at = scene.best(two & (scene.area >= 16), score - 8.0 * rim, quality, tries=500)
    if at is not None:
        return scene.chunk("two_unequal", at)
    at, labels, edit = scene.single_object()
    area = int((labels > 0).sum())
    place = most_room(labels > 0)
    if area < 15 or place[2] < 1:  # no companion of five pixels has room, or is small enough
        labels, edit = scene.disc(scene.size / 5), "everything cleared and a disc drawn"
        area, place = int((labels > 0).sum()), most_room(labels > 0)
    radius = min(math.sqrt(area / 5 / math.pi), place[2])
    small = scene.disc(max(radius, 1), place[:2]) > 0
    labels = np.where(small, scene.common, labels)
    edit = f"{edit}, a small disc drawn beside".removeprefix(", ")
    return scene.chunk("two_unequal", at, edit, truth=labels)


def most_room(front: np.ndarray) -> tuple[float, float, float]:
    """Find row and column with the most room around, and the radius of a disc that fits there.

    The disc touches neither the foreground, not even diagonally, nor the rim.
    """
    free = np.pad(~front, 1)
    distance = ndimage.distance_transform_edt(free)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(row), float(column), float(distance[row, column]) - 1.51


def _ring(scene: _Scene) -> Chunk:
    rim = scene.sides().sum(axis=0)

    def quality(front: np.ndarray, instances: Labels | None) -> float:
        hole = _hole(front)
        return float(hole) * (hole >= 4) * _one_instance_each(front, instances)

    shown = scene.holes() >= 4
    at = scene.best(shown & (scene.euler() == 0), -rim - scene.centred(), quality, tries=500)
    if at is not None:
        return scene.chunk("ring", at)
    at, labels, edit = scene.single_object()
    depth = ndimage.distance_transform_edt(np.pad(labels > 0, 1))[1:-1, 1:-1]
    hollow = np.where(depth > 2, 0, labels)
    if _hole(hollow > 0) < 4:
        labels = scene.disc(scene.size / 4)
        hollow = np.where(scene.disc(scene.size / 8) > 0, 0, labels)
        edit = "everything cleared, a ring drawn"
    else:
        edit = f"{edit}, the inside of the object cleared".removeprefix(", ")
    return scene.chunk("ring", at, edit, truth=hollow)


def _typical(scene: _Scene, share: float) -> tuple[int, int]:
    """Find a window with about this share of foreground and as many classes as there are."""
    score = scene.classes() - 4 * np.abs(scene.area / scene.size**2 - share)
    # Whole objects rather than parts of them.
    score = score - scene.sides().sum(axis=0) / scene.size
    return scene.best(scene.area > 0, score, tries=1) or scene.densest()


def _ignored_strip(scene: _Scene) -> Chunk:
    share = scene.sums(scene.void) / scene.size**2
    partly = (share >= 0.05) & (share <= 0.6) & (scene.area > 0)
    if partly.any():
        score = np.where(partly, -np.abs(share - 0.25), -np.inf)
        at = tuple(int(i) for i in np.unravel_index(int(score.argmax()), score.shape))
        return scene.chunk("ignored_strip", at)
    columns = scene.size // 4
    in_strip = scene.sums(scene.front, columns=columns)[:, : scene.area.shape[1]]
    strip_share, rest = in_strip / (scene.size * columns), scene.area - in_strip
    score = scene.classes() - 2 * np.abs(strip_share - 0.3) - np.abs(rest / scene.size**2 - 0.2)
    # The strip shall hide some foreground and leave some.
    at = scene.best((in_strip > 0) & (rest > 0), score, tries=1) or scene.densest()
    truth = scene.labels(at)
    target = truth.copy()
    target[:, :columns] = scene.ignore_index
    edit = f"the {columns} leftmost columns marked with {scene.ignore_index}"
    return scene.chunk("ignored_strip", at, edit, truth=truth, target=target)


def _label_noise(scene: _Scene) -> Chunk:
    at = _typical(scene, 0.3)
    truth = scene.labels(at)
    target = noisy(truth, "flip_boundary", seed=scene.seed, fraction=0.5)
    edit = "half of the boundary pixels, drawn at random, given a neighbour's label"
    if (target == truth).all():  # no outline to be wrong about
        rng = np.random.default_rng(scene.seed)
        wrong = rng.choice(truth.size, size=truth.size // 20, replace=False)
        target.ravel()[wrong] = (truth.ravel()[wrong] + 1) % scene.num_classes
        edit = "one label in twenty, drawn at random, changed"
    return scene.chunk("label_noise", at, edit, truth=truth, target=target)


def _saturated(scene: _Scene) -> Chunk:
    at = _typical(scene, 0.4)
    return scene.chunk(
        "saturated", at, note="the predictions' logits are ±10 000", confidence=SATURATED
    )


def _resized(scene: _Scene, size: int) -> _Scene:
    """Return the same scene with windows of another size."""
    if size == scene.size:
        return scene
    other = object.__new__(_Scene)
    other.__dict__.update(scene.__dict__, size=size)
    other.area = other.sums(other.front)
    other.clear = other.sums(other.void) == 0
    return other


_MAKERS: dict[str, Callable[[_Scene], Chunk]] = {
    "empty": _empty,
    "full": _full,
    "one_pixel": _one_pixel,
    "thin_line": _thin_line,
    "border": _border,
    "two_unequal": _two_unequal,
    "ring": _ring,
    "ignored_strip": _ignored_strip,
    "label_noise": _label_noise,
    "saturated": _saturated,
}


def check_names(
    caller: str, argument: str, names: Iterable[str] | None, known: Mapping[str, str]
) -> list[str]:
    """Return the chosen names, all the known ones by default; raise for an unknown one."""
    if names is None:
        return list(known)
    if isinstance(names, str):
        names = (names,)
    names = list(names)
    for name in names:
        if name not in known:
            raise ValueError(
                f"{caller}: {argument} holds {name!r}, wanted names among {', '.join(known)}"
            )
    return names
