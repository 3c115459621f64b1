"""One look for every figure of the book.

``use_style()`` once at the top of a chapter; after that plain matplotlib, and these helpers for
what recurs: an image with its mask, a map of gradients, a curve. Captions and alt texts belong to
the notebook cell, not to the figure.

The colours are those of Okabe and Ito (2008), which readers with any of the common colour vision
deficiencies can tell apart. Figures are white cards: they look the same on a light page, on a dark
one and in print.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = [
    "CLASS_COLOURS",
    "COLOURS",
    "GRADIENT_MAP",
    "PAGE_WIDTH",
    "colour_bar",
    "curve",
    "gradient_map",
    "panels",
    "probability_map",
    "show_image",
    "show_mask",
    "use_style",
]

COLOURS = MappingProxyType(
    {
        "blue": "#0072B2",
        "vermillion": "#D55E00",
        "green": "#009E73",
        "orange": "#E69F00",
        "purple": "#CC79A7",
        "sky": "#56B4E9",
        "yellow": "#F0E442",
        "black": "#000000",
    }
)
"""The eight colours of Okabe and Ito by name; the first seven, less yellow, are the line cycle."""

CLASS_COLOURS = (
    COLOURS["orange"],
    COLOURS["sky"],
    COLOURS["green"],
    COLOURS["purple"],
    COLOURS["vermillion"],
    COLOURS["blue"],
    COLOURS["yellow"],
)
"""Colour of foreground class 1, 2, 3, … (repeating), chosen to stand out on grey images."""

GRADIENT_MAP = LinearSegmentedColormap.from_list(
    "vermillion_white_blue",
    ["#7F3300", COLOURS["vermillion"], "#F3B48A", "#FFFFFF", "#8CC3E3", COLOURS["blue"], "#003B5C"],
).with_extremes(bad="#BBBBBB")
"""Diverging: vermillion below zero, white at zero, blue above; grey where there is no number."""

PAGE_WIDTH = 7.2
"""Width of a full-width figure in inches; taller figures keep it, so that fonts match."""

_INK = "#222222"
_STYLE = {
    "figure.figsize": (PAGE_WIDTH, 3.2),
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "white",
    "axes.prop_cycle": cycler(
        color=[COLOURS[c] for c in ("blue", "vermillion", "green", "orange", "purple", "sky")]
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.titlepad": 5,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": _INK,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "mathtext.fontset": "dejavusans",
    "lines.linewidth": 2,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Set the book's look for every figure that follows; in a notebook, inline figures too."""
    mpl.rcParams.update(_STYLE)


def panels(
    rows: int, columns: int, *, width: float = PAGE_WIDTH, aspect: float = 1.0, head: float = 0.28
) -> tuple[Figure, np.ndarray]:
    """Make a grid of axes for pictures; returns the figure and a (rows, columns) array of axes.

    Args:
        rows, columns: the grid.
        width: of the whole figure, in inches.
        aspect: height over width of one picture.
        head: room above each picture for its title, in inches.
    """
    if rows < 1 or columns < 1:
        raise ValueError(
            f"panels: got {rows} rows and {columns} columns, wanted at least 1 of each"
        )
    side = width / columns
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width, rows * (side * aspect + head)),
        squeeze=False,
        layout="constrained",
    )
    return figure, axes


def _picture(caller: str, name: str, values: Any) -> np.ndarray:
    """Turn what a caller has, a tensor with leading axes of length 1 included, into (H, W)."""
    array = (
        values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    )
    picture = array
    while picture.ndim > 2 and picture.shape[0] == 1:
        picture = picture[0]
    if picture.ndim != 2:
        raise ValueError(
            f"{caller}: {name} has shape {array.shape}, wanted (rows, columns); "
            "pick one image, one class and, in 3-D, one slice"
        )
    return picture


def show_image(ax: Axes, image: Any, *, title: str = "", brighten: bool = False) -> AxesImage:
    """Show a grey image without ticks; ``brighten`` stretches the darkest 99.5 % over the range."""
    picture = _picture("show_image", "image", image)
    top = float(np.percentile(picture, 99.5)) if brighten else 1.0
    drawn = ax.imshow(picture, cmap="gray", vmin=0, vmax=max(top, 1e-6), interpolation="nearest")
    _bare(ax, title)
    return drawn


def show_mask(
    ax: Axes,
    image: Any,
    mask: Any,
    *,
    title: str = "",
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = None,
    colours: Sequence[str] = CLASS_COLOURS,
    fill: float = 0.25,
    line_width: float = 1.4,
    brighten: bool = False,
    legend: bool | None = None,
) -> None:
    """Show an image with its mask: each foreground class outlined and tinted in its colour.

    Args:
        ax: where to draw.
        image: (rows, columns) in [0, 1]; ``None`` draws the mask alone on white.
        mask: integer labels of the same shape; 0 is background.
        title: above the picture.
        class_names: for the legend, one for each label, background first.
        ignore_index: label of the pixels that do not count; they are hatched.
        colours: for classes 1, 2, 3, …
        fill: opacity of the tint, in [0, 1].
        line_width: of the outline, in points; 0 leaves it out.
        brighten: stretch a dark image over the range.
        legend: draw one; by default only if there are ``class_names``.
    """
    labels = _picture("show_mask", "mask", mask).astype(int)
    if image is None:
        show_image(ax, np.ones(labels.shape))
    else:
        if _picture("show_mask", "image", image).shape != labels.shape:
            raise ValueError(
                f"show_mask: image has shape {np.shape(image)} but the mask has {labels.shape}; "
                "crop both alike"
            )
        show_image(ax, image, brighten=brighten)
    tint = np.zeros((*labels.shape, 4))
    handles = []
    for label in np.unique(labels):
        if label == 0 or label == ignore_index:
            continue
        colour = colours[(label - 1) % len(colours)]
        tint[labels == label] = to_rgba(colour, fill)
        if line_width > 0:
            outline(ax, labels == label, colour, line_width)
        name = class_names[label] if class_names is not None else f"class {label}"
        handles.append(Patch(facecolor=to_rgba(colour, 0.5), edgecolor=colour, label=name))
    ax.imshow(tint, interpolation="nearest")
    if ignore_index is not None and (labels == ignore_index).any():
        handles.append(hatch(ax, labels == ignore_index))
    if (legend or (legend is None and class_names is not None)) and handles:
        ax.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.02),
            ncols=min(len(handles), 3),
            handlelength=1,
            columnspacing=1,
        )
    _bare(ax, title)


def outline(
    ax: Axes,
    region: np.ndarray,
    colour: str,
    line_width: float = 1.4,
    *,
    dashed: bool = False,
) -> None:
    """Draw the border of a set of pixels exactly along the pixels' edges."""
    padded = np.pad(np.asarray(region, dtype=bool), 1)
    # An edge stands wherever two neighbours differ: to the left of a pixel, and above it.
    left = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])[:, ::-1]
    above = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])[:, ::-1]
    corner, down, across = np.array([-0.5, -0.5]), np.array([0, 1]), np.array([1, 0])
    segments = np.concatenate(
        [
            np.stack([places + corner, places + corner + step], axis=1)
            for places, step in ((left, down), (above, across))
        ]
    )
    ax.add_collection(
        mpl.collections.LineCollection(
            segments,
            colors=colour,
            linewidths=line_width,
            linestyles=(0, (2.5, 1.5)) if dashed else "solid",
            capstyle="butt" if dashed else "projecting",
        )
    )


def hatch(ax: Axes, region: np.ndarray, label: str = "ignored") -> Patch:
    """Hatch a set of pixels, as ignored ones are shown; returns the patch for a legend."""
    region = np.asarray(region, dtype=float)
    limits = ax.get_xlim(), ax.get_ylim()
    # Padded, so that a region at the picture's border is closed.
    rows, columns = (np.arange(-1, n + 1) for n in region.shape)
    with mpl.rc_context({"hatch.color": "#777777", "hatch.linewidth": 0.8}):
        ax.contourf(
            columns,
            rows,
            np.pad(region, 1),
            levels=[0.5, 1.5],
            colors=[to_rgba("white", 0.6)],
            hatches=["////"],
        )
        ax.set(xlim=limits[0], ylim=limits[1])
        return Patch(facecolor="white", edgecolor="#777777", hatch="////", label=label)


def probability_map(ax: Axes, probability: Any, *, title: str = "") -> AxesImage:
    """Show probabilities from 0 (white) to 1 (dark); returns the picture for a ``colour_bar``."""
    drawn = ax.imshow(
        _picture("probability_map", "probability", probability),
        cmap="Greys",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    _bare(ax, title)
    return drawn


def gradient_map(
    ax: Axes, gradient: Any, *, limit: float | None = None, title: str = ""
) -> AxesImage:
    """Show a signed map, zero in white; returns the picture for a ``colour_bar``.

    Args:
        ax: where to draw.
        gradient: (rows, columns); leading axes of length 1 are dropped.
        limit: the value of the deepest colour, on both sides; by default the largest magnitude.
        title: above the picture.
    """
    picture = _picture("gradient_map", "gradient", gradient)
    if limit is None:
        finite = np.abs(picture[np.isfinite(picture)])
        limit = float(finite.max()) if finite.size else 0.0
    if limit < 0:
        raise ValueError(f"gradient_map: limit is {limit}, wanted a number >= 0")
    # An all-zero map keeps a finite scale and stays white.
    limit = limit or 1.0
    drawn = ax.imshow(picture, cmap=GRADIENT_MAP, vmin=-limit, vmax=limit, interpolation="nearest")
    _bare(ax, title)
    return drawn


def colour_bar(
    figure: Figure, drawn: AxesImage, axes: Any, *, label: str, ticks: Sequence[float] | None = None
) -> Colorbar:
    """Put a thin horizontal scale below the given axes, and return it."""
    bar = figure.colorbar(
        drawn,
        ax=np.ravel(axes).tolist(),
        orientation="horizontal",
        shrink=0.5,
        aspect=40,
        pad=0.02,
        ticks=ticks,
    )
    bar.outline.set_visible(False)
    bar.set_label(label, size=9)
    bar.ax.tick_params(labelsize=8, length=2)
    return bar


def curve(
    ax: Axes,
    x: Any,
    y: Any,
    label: str = "",
    *,
    at: float | None = None,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    **line: Any,
) -> None:
    """Draw one line and write its name beside it, instead of a legend.

    Args:
        ax: where to draw.
        x, y: one-dimensional, arrays or tensors.
        label: written beside the line in its colour; empty leaves it out.
        at: the x where the label stands, just above the line; by default it stands to the right
            of the last finite point.
        xlabel, ylabel, title: set when given.
        line: anything that matplotlib's ``plot`` takes.
    """
    x, y = (
        v.detach().cpu().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for v in (x, y)
    )
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(
            f"curve: x has shape {x.shape} and y has {y.shape}, wanted two alike of one axis"
        )
    (drawn,) = ax.plot(x, y, **line)
    finite = np.flatnonzero(np.isfinite(y))
    if label and finite.size:
        where = finite[-1] if at is None else finite[np.abs(x[finite] - at).argmin()]
        ax.annotate(
            label,
            (x[where], y[where]),
            xytext=(5, 0) if at is None else (3, 3),
            textcoords="offset points",
            va="center" if at is None else "bottom",
            # Darker than the line: text needs more contrast on white than a stroke.
            color=tuple(0.65 * part for part in to_rgba(drawn.get_color())[:3]),
            fontsize=9,
            annotation_clip=False,
            # A halo, for names that have to stand on another line.
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
    for setter, text in ((ax.set_xlabel, xlabel), (ax.set_ylabel, ylabel), (ax.set_title, title)):
        if text:
            setter(text)


def _bare(ax: Axes, title: str) -> None:
    """Take ticks, grid and frame from a picture."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color("#999999")
        spine.set_linewidth(0.6)
    if title:
        ax.set_title(title)
