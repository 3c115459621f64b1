"""Real images with masks, and seeded synthetic ones: all offline, all deterministic.

Every source is a plain function that returns a fresh ``Sample``; ``SOURCES`` lists them by name and
``load(name)`` calls one. What a source is made of, under which licence, and whose work it is stands
in its docstring and, ready for a caption, in ``Sample.source``.

| name | what | shape | classes | foreground |
| --- | --- | --- | --- | --- |
| ``brain`` | slice of the MNI152 T1 template, tissue labels | 233 × 197 | 4 | 40 to 46 % |
| ``brain_volume`` | 3-D crop of the same template | 48 × 64 × 64 | 4 | 51 % |
| ``lesions`` | brain slice with one to three seeded lesions | 192 × 160 | 2 | 0.2 to 0.5 % |
| ``nuclei`` | fluorescence micrograph of 125 nuclei, instance labels | 512 × 512 | 2 | 20 % |
| ``vessels`` | seeded vessel tree, 3 px wide down to 1 px | 256 × 256 | 2 | 3 to 9 % |
| ``retina`` | fundus photograph, silver label of its vessels | 470 × 470 | 2 | 8 % |

(The range of ``brain`` is that of the axial slices 60 to 100, the share of ``brain_volume`` that of
the default crop.) ``noisy`` spoils a mask in the ways in which
annotators do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

__all__ = [
    "NOISE_KINDS",
    "SOURCES",
    "Sample",
    "brain_slice",
    "brain_volume",
    "dilate",
    "erode",
    "lesions",
    "load",
    "noisy",
    "nuclei",
    "objects",
    "retina",
    "shift",
    "vessels",
]

Labels = NDArray[np.int64]
Image = NDArray[np.float32]

TISSUES = ("background", "CSF and other", "grey matter", "white matter")

_MNI_SOURCE = (
    "MNI ICBM 2009a symmetric template (Fonov et al. 2009, 2011), as packaged with nilearn"
)


@dataclass(frozen=True)
class Sample:
    """One image with its mask.

    Attributes:
        name: the source's name, as in ``SOURCES``.
        image: intensities, float32 in [0, 1], shape ``(*space)``.
        mask: labels, int64 in [0, num_classes), shape ``(*space)``; 0 is background.
        class_names: one name for each label.
        source: where it comes from and under which licence: a sentence fit for a caption.
        instances: int64 labels of the single objects (0 is background), where they are known.
        soft: class probabilities, float32, shape ``(num_classes, *space)``, where they are known.
    """

    name: str
    image: Image
    mask: Labels
    class_names: tuple[str, ...]
    source: str
    instances: Labels | None = None
    soft: NDArray[np.float32] | None = None

    @property
    def num_classes(self) -> int:
        """The number of labels, background included."""
        return len(self.class_names)

    @property
    def foreground(self) -> float:
        """The share of pixels that are not background."""
        return float((self.mask > 0).mean())

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image as ``(1, 1, *space)`` and the labels as ``(1, *space)``."""
        return torch.tensor(self.image)[None, None], torch.tensor(self.mask)[None]

    def crop(self, *ranges: slice) -> Sample:
        """Return the part inside the slices, one for each space axis."""
        if len(ranges) != self.mask.ndim:
            raise ValueError(
                f"crop: got {len(ranges)} slices, but {self.name} has {self.mask.ndim} space axes; "
                "give one slice for each"
            )
        cut = {
            field: None if array is None else array[(..., *ranges)].copy()
            for field in ("image", "mask", "instances", "soft")
            for array in (getattr(self, field),)
        }
        if cut["mask"].size == 0:
            raise ValueError(
                f"crop: {ranges} leaves nothing of {self.name}, whose shape is {self.mask.shape}"
            )
        return replace(self, **cut)

    def binary(self, *labels: int) -> Sample:
        """Return the same image, with 1 where the mask holds one of ``labels`` (default: > 0)."""
        wanted = labels or tuple(range(1, self.num_classes))
        unknown = sorted(set(wanted) - set(range(self.num_classes)))
        if unknown:
            raise ValueError(
                f"binary: label {unknown[0]} is not in {self.name}, "
                f"whose labels are 0 to {self.num_classes - 1} {self.class_names}"
            )
        chosen = np.isin(self.mask, wanted)
        names = " + ".join(self.class_names[label] for label in wanted)
        return replace(
            self,
            mask=chosen.astype(np.int64),
            class_names=("background", names),
            instances=None if self.instances is None else np.where(chosen, self.instances, 0),
            soft=None,
        )


# ------------------------------------------------------------------ brain: MNI152 tissue


@lru_cache(maxsize=1)
def _mni() -> tuple[np.ndarray, ...]:
    """Read the template once: T1, brain mask, grey and white matter, in (z, row, column) order.

    The packaged volumes are indexed (x, y, z) = (left to right, back to front, feet to head).
    Here rows run from front to back, so that an axial slice shows the face upwards.
    """
    from nilearn import datasets

    # Resolution 1 is the resolution of the packaged files: nothing is resampled.
    volumes = (
        datasets.load_mni152_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
    )
    return tuple(np.asarray(volume.dataobj).transpose(2, 1, 0)[:, ::-1] for volume in volumes)


def _tissues(
    image: np.ndarray, brain: np.ndarray, grey: np.ndarray, white: np.ndarray
) -> tuple[Image, Labels, NDArray[np.float32]]:
    """Turn a part of the four maps of ``_mni`` into image, labels and class probabilities."""
    # Rounding to 8 bits lets the two pass 1 by a hair at a few voxels.
    excess = np.maximum(grey + white, 1)
    grey, white = grey / excess, white / excess
    rest = np.maximum(1 - grey - white, 0)
    inside = brain > 0
    soft = np.stack([np.where(inside, 0, rest), np.where(inside, rest, 0), grey, white])
    return image.astype(np.float32), soft.argmax(axis=0), soft.astype(np.float32)


_PLANES = {"axial": (0, 189), "coronal": (1, 233), "sagittal": (2, 197)}


def brain_slice(index: int | None = None, plane: str = "axial") -> Sample:
    """Return one slice of the MNI152 T1 template with its tissue labels.

    Labels: 0 background, 1 cerebrospinal fluid and whatever else lies inside the brain mask,
    2 grey matter, 3 white matter. They are the largest of the four probabilities in ``soft``:
    the packaged grey- and white-matter maps, and the rest, which counts as class 1 inside the
    packaged brain mask and as background outside.

    Args:
        index: voxel index along the axis that the plane cuts, in the file's own order: axial
            0..188 (feet to head, default 75), coronal 0..232 (back to front, default 116),
            sagittal 0..196 (left to right, default 80). One voxel is 1 mm.
        plane: "axial" (233 × 197), "coronal" (189 × 197) or "sagittal" (189 × 233). The top row
            is the front in an axial slice and the crown of the head in the others; columns run
            from the left to the right of the head, in a sagittal slice from front to back.

    Provenance: MNI ICBM 2009a nonlinear symmetric template (Fonov et al. 2009, 2011), read from
    the files that the nilearn package ships. Their licence is stated there as "unknown", so they
    are read at run time and no copy is kept here.
    """
    if plane not in _PLANES:
        raise ValueError(f"brain_slice: plane is {plane!r}, wanted one of {sorted(_PLANES)}")
    axis, length = _PLANES[plane]
    if index is None:
        index = {"axial": 75, "coronal": 116, "sagittal": 80}[plane]
    if not 0 <= index < length:
        raise ValueError(
            f"brain_slice: index is {index}, but {plane} slices run from 0 to {length - 1}"
        )
    # The rows of the stored volume are flipped, see _mni.
    at = length - 1 - index if plane == "coronal" else index
    flip = slice(None) if plane == "axial" else slice(None, None, -1)
    image, mask, soft = _tissues(*(volume.take(at, axis=axis)[flip] for volume in _mni()))
    return Sample(
        name="brain",
        image=image,
        mask=mask,
        class_names=TISSUES,
        source=f"{plane.capitalize()} slice {index} of the {_MNI_SOURCE}.",
        soft=soft,
    )


def brain_volume(
    origin: Sequence[int] = (52, 24, 20), size: Sequence[int] = (48, 64, 64)
) -> Sample:
    """Return a 3-D crop of the MNI152 T1 template with its tissue labels.

    Args:
        origin: first voxel (axial index, row, column). Rows run from the front to the back of
            the head, columns from left to right, as in an axial ``brain_slice``.
        size: voxels along each axis. The whole template is ``origin=(0, 0, 0)``,
            ``size=(189, 233, 197)``. The default crop holds all four classes.

    Labels and provenance: see ``brain_slice``.
    """
    whole = (189, 233, 197)
    if len(origin) != 3 or len(size) != 3:
        raise ValueError(
            f"brain_volume: origin {tuple(origin)} and size {tuple(size)} need three numbers each: "
            "(axial index, row, column)"
        )
    if any(o < 0 or s < 1 or o + s > w for o, s, w in zip(origin, size, whole, strict=True)):
        raise ValueError(
            f"brain_volume: origin {tuple(origin)} with size {tuple(size)} does not fit into the "
            f"template, whose shape is {whole}"
        )
    window = tuple(slice(o, o + s) for o, s in zip(origin, size, strict=True))
    image, mask, soft = _tissues(*(volume[window] for volume in _mni()))
    return Sample(
        name="brain_volume",
        image=image,
        mask=mask,
        class_names=TISSUES,
        source=f"Crop of {' × '.join(map(str, size))} voxels of the {_MNI_SOURCE}.",
        soft=soft,
    )


def lesions(seed: int = 0, *, contrast: float = 0.35, noise: float = 0.02) -> Sample:
    """Return a brain slice with seeded lesions: 0.2 to 0.5 % of the pixels are foreground.

    One to three blobs lie in the white matter, apart from each other. Each is a slightly
    irregular disc with the area of a circle of radius 2 to 5 px, darker than the white matter
    around it with a soft rim, as lesions are on T1 images. The axial slice (index 75 to 105) is
    drawn from the seed as well; it is cut to 192 × 160 around the brain. ``instances`` numbers the
    lesions.

    Args:
        seed: everything random follows from it.
        contrast: how much darker the lesion is, in units of the image's range, in (0, 1].
        noise: standard deviation of the Gaussian noise over the whole image, >= 0.

    Provenance: made here, on the template of ``brain_slice``.
    """
    if not 0 < contrast <= 1:
        raise ValueError(f"lesions: contrast is {contrast}, wanted a number in (0, 1]")
    if noise < 0:
        raise ValueError(f"lesions: noise is {noise}, wanted a number >= 0")
    rng = np.random.default_rng(seed)
    index = int(rng.integers(75, 106))
    head = brain_slice(index).crop(slice(20, 212), slice(18, 178))
    # Well inside the white matter, so that most of a blob is surrounded by it.
    depth = ndimage.distance_transform_edt(head.mask == 3)
    inside_brain = head.mask > 0
    places = np.argwhere(depth >= 2.5)
    rows, columns = np.indices(head.mask.shape)
    count = int(rng.integers(1, 4))
    while True:  # draw again until the blobs fit: a few tries in most cases
        instances = np.zeros_like(head.mask)
        for label in range(1, count + 1):
            row, column = places[rng.integers(len(places))]
            angle = np.arctan2(rows - row, columns - column)
            phase = rng.uniform(0, 2 * np.pi, size=2)
            wobble = 1 + 0.15 * np.cos(2 * angle + phase[0]) + 0.08 * np.cos(3 * angle + phase[1])
            radius = rng.uniform(2.2, 4.9) * wobble
            instances[np.hypot(rows - row, columns - column) <= radius] = label
        mask = instances > 0
        areas = np.bincount(instances.ravel(), minlength=count + 1)[1:]
        # Apart: not even their surroundings of 2 px touch.
        apart = objects(ndimage.binary_dilation(mask, iterations=2))[1] == count
        fit = np.all((areas >= np.pi * 2**2) & (areas <= np.pi * 5**2)) and inside_brain[mask].all()
        if apart and fit and 0.002 <= mask.mean() <= 0.005:
            break
    image = head.image - contrast * ndimage.gaussian_filter(mask.astype(np.float32), 0.8)
    image = image + rng.normal(0, noise, size=image.shape)
    return Sample(
        name="lesions",
        image=np.clip(image, 0, 1).astype(np.float32),
        mask=mask.astype(np.int64),
        class_names=("background", "lesion"),
        source=f"Synthetic lesions (seed {seed}) on axial slice {index} of the {_MNI_SOURCE}.",
        instances=instances,
    )


# ------------------------------------------------------------------ nuclei: BBBC038


@lru_cache(maxsize=1)
def _nuclei() -> tuple[Image, Labels]:
    path = files("seglosses_nb") / "lab" / "data" / "nuclei.npz"
    with path.open("rb") as stream, np.load(stream) as archive:
        image, instances = archive["image"], archive["instances"]
    return (image / np.float32(image.max())).astype(np.float32), instances.astype(np.int64)


def nuclei() -> Sample:
    """Return a fluorescence micrograph with 125 nuclei of 25 to 751 px, 20 % foreground.

    ``mask`` is 1 on every nucleus; ``instances`` numbers the nuclei 1 to 125 (touching nuclei have
    numbers of their own but are one connected component of the mask).

    Provenance: image set BBBC038 of the Broad Bioimage Benchmark Collection (2018 Data Science
    Bowl), CC0; Caicedo et al. 2019, Nature Methods 16, 1247-1253. The excerpt is the one that the
    stardist package ships as its 2-D test image; ``README.md`` beside the file has the checksums.
    """
    image, instances = _nuclei()
    return Sample(
        name="nuclei",
        image=image.copy(),
        mask=(instances > 0).astype(np.int64),
        class_names=("background", "nucleus"),
        source="Fluorescence micrograph of nuclei, BBBC038 (Caicedo et al. 2019), CC0.",
        instances=instances.copy(),
    )


# ------------------------------------------------------------------ vessels


def _branch(
    rng: np.random.Generator,
    start: NDArray[np.float64],
    heading: float,
    length: float,
    bend: float,
) -> tuple[NDArray[np.float64], float]:
    """Walk in steps of half a pixel; the heading drifts. Return the points and the last heading."""
    steps = int(length / 0.5)
    drift = ndimage.gaussian_filter1d(rng.normal(0, bend, steps), 6, mode="nearest")
    headings = heading + np.cumsum(drift)
    moves = 0.5 * np.stack([np.sin(headings), np.cos(headings)], axis=1)
    return start + np.cumsum(moves, axis=0), float(headings[-1])


def vessels(seed: int = 0, *, shape: tuple[int, int] = (256, 256), noise: float = 0.04) -> Sample:
    """Return a seeded vessel tree: 3 px wide at the root, 1 px at the tips, connected.

    The tree enters at the left border and forks six times; the widths by generation are
    3, 3, 2, 2, 1, 1, 1 px. Branches wander and are cut off where they leave the picture. The image
    shows them brighter than an uneven, noisy background. About 3 to 9 % of the default shape are
    foreground.

    Args:
        seed: everything random follows from it.
        shape: rows and columns, at least 64 each.
        noise: standard deviation of the Gaussian noise, >= 0.

    Provenance: made here.
    """
    if len(shape) != 2 or min(shape) < 64:
        raise ValueError(
            f"vessels: shape is {tuple(shape)}, wanted (rows, columns) of at least 64 each"
        )
    if noise < 0:
        raise ValueError(f"vessels: noise is {noise}, wanted a number >= 0")
    rng = np.random.default_rng(seed)
    scale = min(shape) / 256
    mask = np.zeros(shape, dtype=bool)
    widths = (3, 3, 2, 2, 1, 1, 1)

    def grow(start: NDArray[np.float64], heading: float, generation: int) -> None:
        length = scale * rng.uniform(48, 68) * 0.88**generation
        points, last = _branch(rng, start, heading, length, bend=0.035)
        outside = np.any((points < 0) | (points > np.array(shape) - 1), axis=1)
        # A branch ends where it leaves the picture: re-entering would break the connection.
        if outside.any():
            points = points[: int(outside.argmax())]
        _draw(mask, points, widths[generation])
        if outside.any() or generation + 1 == len(widths):
            return
        for side in (-1, 1):
            grow(points[-1], last + side * rng.uniform(0.3, 0.75), generation + 1)

    grow(np.array([rng.uniform(0.35, 0.65) * (shape[0] - 1), 0.0]), rng.uniform(-0.25, 0.25), 0)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 24 * scale)
    texture = 0.3 + 0.1 * (texture - texture.min()) / np.ptp(texture)
    image = texture + 0.45 * ndimage.gaussian_filter(mask.astype(np.float64), 0.6)
    image = image + rng.normal(0, noise, size=shape)
    return Sample(
        name="vessels",
        image=np.clip(image, 0, 1).astype(np.float32),
        mask=mask.astype(np.int64),
        class_names=("background", "vessel"),
        source=f"Synthetic vessel tree (seed {seed}).",
    )


def _draw(mask: NDArray[np.bool_], points: NDArray[np.float64], width: int) -> None:
    """Stamp a brush of ``width`` pixels at every point; half-pixel steps leave no gap."""
    offsets = range(-((width - 1) // 2), width // 2 + 1)
    for row_offset in offsets:
        for column_offset in offsets:
            if width == 3 and abs(row_offset) + abs(column_offset) == 2:
                continue  # a plus instead of a square keeps diagonals 3 px wide
            at = np.rint(points).astype(int) + np.array([row_offset, column_offset])
            at = at[np.all((at >= 0) & (at < mask.shape), axis=1)]
            mask[at[:, 0], at[:, 1]] = True


# ------------------------------------------------------------------ retina


@lru_cache(maxsize=1)
def _retina() -> tuple[Image, Labels]:
    from skimage import data
    from skimage.filters import sato
    from skimage.morphology import remove_small_objects

    green = data.retina()[:1410, :1410, 1].astype(np.float32) / 255
    green = green.reshape(470, 3, 470, 3).mean(axis=(1, 3))
    # The ridge filter would mistake the rim of the round field of view for a vessel.
    field = ndimage.binary_erosion(
        ndimage.gaussian_filter(green, 2) > 0.1, iterations=12, border_value=0
    )
    ridge = sato(green, sigmas=(1, 1.5, 2, 2.5), black_ridges=True)
    vessel = field & (ridge > np.percentile(ridge[field], 88))
    vessel = remove_small_objects(vessel, max_size=20, connectivity=2)
    return green / green.max(), vessel.astype(np.int64)


def retina() -> Sample:
    """Return a fundus photograph with a *silver* label of its vessels.

    No person drew this label: it is the response of a ridge filter (Sato et al. 1998, scales 1
    to 2.5 px) above its 88th percentile inside the field of view, without specks of 20 px or
    fewer. It is a plausible label with real texture and real gaps, not the truth.

    Provenance: "Fundus photograph of normal left eye", Mikael Häggström, CC0, as packaged with
    scikit-image; green channel, averaged over 3 × 3 pixels to 470 × 470.
    """
    image, mask = _retina()
    return Sample(
        name="retina",
        image=image.astype(np.float32),
        mask=mask.copy(),
        class_names=("background", "vessel (silver label)"),
        source=(
            "Fundus photograph (Häggström 2014, CC0), as packaged with scikit-image; silver label: "
            "Sato ridge response above its 88th percentile."
        ),
    )


# ------------------------------------------------------------------ all of them

SOURCES: MappingProxyType[str, Callable[..., Sample]] = MappingProxyType(
    {
        "brain": brain_slice,
        "brain_volume": brain_volume,
        "lesions": lesions,
        "nuclei": nuclei,
        "vessels": vessels,
        "retina": retina,
    }
)


def load(name: str, **parameters: object) -> Sample:
    """Return a sample by name; ``parameters`` go to the function that ``SOURCES`` holds for it.

    Example:
        >>> load("vessels", seed=3).mask.shape
        (256, 256)
    """
    if name not in SOURCES:
        raise ValueError(f"load: name is {name!r}, wanted one of {sorted(SOURCES)}")
    return SOURCES[name](**parameters)


# ------------------------------------------------------------------ masks: objects and noise

NOISE_KINDS = ("dilate", "erode", "shift", "drop", "flip_boundary")


def _check_mask(caller: str, mask: np.ndarray) -> Labels:
    mask = np.asarray(mask)
    if mask.dtype != bool and not np.issubdtype(mask.dtype, np.integer):
        raise TypeError(
            f"{caller}: mask has dtype {mask.dtype}, wanted integer or bool labels; "
            "for probabilities take a threshold or the argmax first"
        )
    if mask.ndim == 0 or mask.size == 0:
        raise ValueError(f"{caller}: mask has shape {mask.shape}, wanted at least one pixel")
    return mask.astype(np.int64)


def _check_pixels(caller: str, pixels: int) -> None:
    if pixels != int(pixels) or pixels < 1:
        raise ValueError(f"{caller}: pixels is {pixels}, wanted a whole number >= 1")


def objects(mask: np.ndarray) -> tuple[Labels, int]:
    """Number the connected components of the foreground (label > 0), diagonals included.

    Returns the int64 component labels and their number.
    """
    mask = _check_mask("objects", mask)
    labels, count = ndimage.label(mask > 0, np.ones((3,) * mask.ndim))
    return labels.astype(np.int64), count


def dilate(mask: np.ndarray, pixels: int = 2) -> Labels:
    """Grow the foreground by a Euclidean distance; a new pixel takes the nearest label."""
    mask = _check_mask("dilate", mask)
    _check_pixels("dilate", pixels)
    if not (mask > 0).any():
        return mask
    distance, nearest = ndimage.distance_transform_edt(mask <= 0, return_indices=True)
    return np.where((mask == 0) & (distance <= pixels), mask[tuple(nearest)], mask)


def erode(mask: np.ndarray, pixels: int = 2) -> Labels:
    """Shrink the foreground by a Euclidean distance from the background inside the picture.

    Borders between two foreground classes stay where they are, and so does the foreground at the
    picture's own border: nobody knows that it ends there.
    """
    mask = _check_mask("erode", mask)
    _check_pixels("erode", pixels)
    if (mask > 0).all():
        return mask
    return np.where(ndimage.distance_transform_edt(mask > 0) <= pixels, 0, mask)


def shift(mask: np.ndarray, offset: Sequence[int]) -> Labels:
    """Move the mask by whole pixels, one number for each axis; what comes in is background."""
    mask = _check_mask("shift", mask)
    if len(offset) != mask.ndim:
        raise ValueError(
            f"shift: offset {tuple(offset)} has {len(offset)} numbers, but the mask has "
            f"{mask.ndim} axes; give one for each"
        )
    moved = np.zeros_like(mask)
    if any(abs(o) >= n for o, n in zip(offset, mask.shape, strict=True)):
        return moved
    into = tuple(slice(max(o, 0), n + min(o, 0)) for o, n in zip(offset, mask.shape, strict=True))
    out_of = tuple(
        slice(max(-o, 0), n + min(-o, 0)) for o, n in zip(offset, mask.shape, strict=True)
    )
    moved[into] = mask[out_of]
    return moved


def noisy(
    mask: np.ndarray,
    kind: str,
    *,
    seed: int = 0,
    pixels: int = 2,
    fraction: float = 0.3,
    instances: np.ndarray | None = None,
) -> Labels:
    """Return the mask with an annotator's error of one kind; works in any number of dimensions.

    Args:
        mask: integer or bool labels, 0 is background.
        kind:
            "dilate" or "erode": the foreground grows or shrinks by ``pixels`` (the outline is drawn
            too generously or too tightly); the seed plays no part.
            "shift": everything moves by ``pixels`` along at least one axis, in a seeded direction.
            "drop": ``fraction`` of the objects (rounded, at least one) are missing, chosen by the
            seed. An object is a label of ``instances``, or else a connected component.
            "flip_boundary": each pixel with a neighbour of another label takes such a neighbour's
            label with probability ``fraction``.
        seed: what "shift", "drop" and "flip_boundary" draw.
        pixels: how far, a whole number >= 1.
        fraction: how many, in (0, 1].
        instances: object labels of the mask's shape, for "drop".

    A mask without foreground has nothing to grow, move or drop and comes back unchanged.
    """
    mask = _check_mask("noisy", mask)
    if kind not in NOISE_KINDS:
        raise ValueError(f"noisy: kind is {kind!r}, wanted one of {list(NOISE_KINDS)}")
    _check_pixels("noisy", pixels)
    if not 0 < fraction <= 1:
        raise ValueError(f"noisy: fraction is {fraction}, wanted a number in (0, 1]")
    if instances is not None and np.shape(instances) != mask.shape:
        raise ValueError(
            f"noisy: instances has shape {np.shape(instances)}, but the mask has {mask.shape}"
        )
    rng = np.random.default_rng(seed)
    if kind == "dilate":
        return dilate(mask, pixels)
    if kind == "erode":
        return erode(mask, pixels)
    if kind == "shift":
        directions = np.argwhere(np.ones((3,) * mask.ndim)) - 1
        directions = directions[np.any(directions != 0, axis=1)]
        return shift(mask, pixels * directions[rng.integers(len(directions))])
    if kind == "drop":
        return _drop(mask, rng, fraction, instances)
    return _flip_boundary(mask, rng, fraction)


def _drop(
    mask: Labels, rng: np.random.Generator, fraction: float, instances: np.ndarray | None
) -> Labels:
    labels = objects(mask)[0] if instances is None else _check_mask("noisy", instances)
    present = np.unique(labels[labels > 0])
    if not present.size:
        return mask
    gone = rng.choice(present, size=max(1, round(fraction * present.size)), replace=False)
    return np.where(np.isin(labels, gone), 0, mask)


def _flip_boundary(mask: Labels, rng: np.random.Generator, fraction: float) -> Labels:
    padded = np.pad(mask, 1, mode="edge")
    neighbours = np.stack(
        [
            np.roll(padded, step, axis=axis)[(slice(1, -1),) * mask.ndim]
            for axis in range(mask.ndim)
            for step in (-1, 1)
        ]
    )
    differs = neighbours != mask
    # A random key for each differing neighbour: the largest is an unbiased choice among them.
    choice = np.where(differs, rng.random(neighbours.shape), -1).argmax(axis=0)
    other = np.take_along_axis(neighbours, choice[None], axis=0)[0]
    flip = differs.any(axis=0) & (rng.random(mask.shape) < fraction)
    return np.where(flip, other, mask)
