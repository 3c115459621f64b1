"""Named crops that are the edge cases of segmentation, named predictions on them, and their table.

A loss shows its character on a handful of small pictures: a crop without foreground, a single
pixel, two objects of unequal size. ``find_chunks`` looks for them in *any* image with a mask. It
crops what the picture has; what the picture does not have it makes from a real crop by the least
edit that does it. ``Chunk.how`` says which of the two it was, and where or by what edit.

``predictions`` makes the named predictions (perfect, shifted, inverted, …) on a chunk, as logits.
``on_chunks`` runs a loss on all of them: a table of values and gradients, and the picture grid.

    >>> from seglosses_nb.lab.chunks import on_chunks
    >>> import torch
    >>> def mean_error(logits, target, ignore_index=255):
    ...     valid = target != ignore_index
    ...     return (logits.sigmoid()[:, 0] - target * valid).abs()[valid].mean()
    >>> report = on_chunks(mean_error)
    >>> report.table.all_finite
    True
    >>> report.table.value("empty", "uniform")
    0.5
"""

from __future__ import annotations

import html
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seglosses_nb.lab import plots
from seglosses_nb.lab.data import Labels, Sample, dilate, erode, load, objects, shift
from seglosses_nb.lab.edge_cases import (
    CHUNKS,
    SATURATED,
    Chunk,
    check_names,
    chunks_of,
    find_chunks,
    most_room,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "CHUNKS",
    "PREDICTIONS",
    "Chunk",
    "ChunkReport",
    "ChunkRow",
    "ChunkTable",
    "Prediction",
    "WholeVersusCrops",
    "chunk_grid",
    "chunk_table",
    "chunks_of",
    "evaluate",
    "find_chunks",
    "on_chunks",
    "predict",
    "predictions",
    "show_chunks",
    "show_predictions",
    "whole_versus_crops",
]

PREDICTIONS: dict[str, str] = {
    "perfect": "the true labels",
    "inverted": "the wrong label on every pixel",
    "uniform": "every logit 0: all classes equally likely",
    "shifted": "the true labels, moved to the right",
    "dilated": "the foreground grown",
    "eroded": "the foreground shrunk",
    "missing_small": "the smallest object missed",
    "false_object": "one disc too many, in the background",
    "confident_wrong": "the wrong label on every pixel, with five times the logits",
}
"""The predictions by name, in the order in which they are shown."""

# ------------------------------------------------------------------ predictions


@dataclass(frozen=True, eq=False)
class Prediction:
    """A named prediction on a chunk, or the reason why there is none.

    Attributes:
        name: a key of ``PREDICTIONS``.
        logits: (1, C, rows, columns), or ``None``.
        labels: the predicted int64 labels; ``None`` for "uniform", which prefers none.
        absent: why the chunk has no such prediction; ``None`` where it has one.
    """

    name: str
    logits: Tensor | None
    labels: Labels | None = None
    absent: str | None = None


def predictions(
    chunk: Chunk,
    *,
    confidence: float = 4.0,
    pixels: int = 2,
    channels: int | None = None,
    names: Iterable[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Prediction]:
    """Make the named predictions on a chunk, as logits.

    All start from ``chunk.truth``: on ``label_noise`` the perfect prediction knows better than the
    label it is scored against. A prediction that would be the same as "perfect" is absent, with
    the reason; so is one that the chunk has no room or no object for.

    | prediction | labels |
    | --- | --- |
    | ``perfect`` | the truth |
    | ``inverted`` | every label replaced by the next class (the other one, if binary) |
    | ``uniform`` | none: every logit is 0 |
    | ``shifted`` | the truth moved to the right by ``pixels``; background comes in |
    | ``dilated``, ``eroded`` | the foreground grown or shrunk by ``pixels`` (Euclidean) |
    | ``missing_small`` | the smallest of at least two objects turned into background |
    | ``false_object`` | a disc where there is most room, radius at most an eighth of the side |
    | ``confident_wrong`` | as ``inverted``, with five times the logits, but no more than 10 000 |

    Args:
        chunk: from ``find_chunks``.
        confidence: how far the predicted class's logit is above the others. Binary logits are
            ``+confidence`` and ``-confidence``; of several channels the predicted one holds
            ``confidence`` and the others 0, which gives two classes the same probabilities. The
            chunk's own ``confidence`` takes precedence.
        pixels: how far the shift goes, and how much the foreground grows or shrinks.
        channels: C; default 1 for two classes, else the number of classes.
        names: which predictions (keys of ``PREDICTIONS``), default all.
        dtype: of the logits.

    Returns:
        The predictions by name, in the order of ``PREDICTIONS``.
    """
    if not 0 < confidence <= SATURATED:
        raise ValueError(
            f"predictions: confidence is {confidence}, wanted a number in (0, {SATURATED:g}]"
        )
    if pixels != int(pixels) or pixels < 1:
        raise ValueError(f"predictions: pixels is {pixels}, wanted a whole number >= 1")
    if channels is None:
        channels = 1 if chunk.num_classes == 2 else chunk.num_classes
    if channels < chunk.num_classes and not (channels == 1 and chunk.num_classes == 2):
        raise ValueError(
            f"predictions: channels is {channels}, but the chunk has {chunk.num_classes} classes; "
            "wanted one channel for each (or 1 for two classes)"
        )
    chosen = check_names("predictions", "names", names, PREDICTIONS)
    magnitude = confidence if chunk.confidence is None else chunk.confidence
    truth, made = chunk.truth, {}
    wrong = (truth + 1) % chunk.num_classes
    for name in chosen:
        labels: Labels | None = None
        absent, strength = None, magnitude
        if name == "perfect":
            labels = truth.copy()
        elif name == "inverted":
            labels = wrong
        elif name == "confident_wrong":
            labels, strength = wrong, min(5 * magnitude, SATURATED)
            if strength <= magnitude:
                absent = "the logits of “inverted” are as large as they get"
        elif name != "uniform":
            labels, absent = _imperfect(name, truth, pixels)
        if absent is not None:
            made[name] = Prediction(name, None, absent=absent)
            continue
        logits = torch.zeros((1, channels, *truth.shape), dtype=dtype)
        if labels is not None:
            predicted = torch.from_numpy(labels)
            if channels == 1:
                logits[0, 0] = (2.0 * predicted - 1.0) * strength
            else:
                logits[0].scatter_(0, predicted[None], strength)
        made[name] = Prediction(name, logits, labels)
    return made


def predict(chunk: Chunk, name: str, **options: Any) -> Tensor:
    """Return the logits of one named prediction; raise where the chunk has none."""
    prediction = predictions(chunk, names=[name], **options)[name]
    if prediction.logits is None:
        raise ValueError(
            f"predict: there is no prediction {name!r} on the chunk {chunk.name!r}: "
            f"{prediction.absent}"
        )
    return prediction.logits


def _imperfect(name: str, truth: Labels, pixels: int) -> tuple[Labels | None, str | None]:
    """Return the predicted labels and the reason why there are none: one of the two is ``None``."""
    if name == "missing_small":
        parts, count = objects(truth)
        if count < 2:
            return None, "there are no two objects" if count else "there is no object"
        smallest = np.bincount(parts.ravel())[1:].argmin() + 1
        return np.where(parts == smallest, 0, truth), None
    if name == "false_object":
        row, column, room = most_room(truth > 0)
        if room < 1:
            return None, "there is no room for another object"
        radius = min(room, max(truth.shape) / 8)
        rows, columns = np.indices(truth.shape)
        disc = np.hypot(rows - row, columns - column) <= radius
        counts = np.bincount(truth[truth > 0], minlength=2)
        return np.where(disc, counts[1:].argmax() + 1, truth), None
    if name == "shifted":
        labels = shift(truth, (0, pixels))
    else:
        labels = dilate(truth, pixels) if name == "dilated" else erode(truth, pixels)
    if (labels == truth).all():
        if not truth.any():
            return None, "there is no object"
        return None, "nothing would change: there is no outline inside the crop"
    return labels, None


# ------------------------------------------------------------------ values and gradients


def evaluate(
    loss: Callable[..., Tensor], chunk: Chunk, logits: Tensor, **parameters: Any
) -> tuple[float, Tensor]:
    """Return a loss's value on a chunk and its gradient with respect to the logits.

    ``loss`` is called as ``loss(logits, target, **parameters)``, with the chunk's ``ignore_index``
    where it has one. A loss that does not depend on the logits has gradient 0.
    """
    logits = logits.detach().clone().requires_grad_()
    if chunk.ignore_index is not None:
        parameters["ignore_index"] = chunk.ignore_index
    value = loss(logits, chunk.tensors()[1], **parameters)
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(
            f"evaluate: {_name_of(loss)} returned {got}, wanted a tensor with one number; "
            'pass reduction="mean"'
        )
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), logits, allow_unused=True)
    return float(value.detach()), torch.zeros_like(logits) if gradient is None else gradient


def _name_of(loss: Any) -> str:
    return getattr(loss, "__name__", None) or type(loss).__name__


def _takes_ignore_index(loss: Callable[..., Any]) -> bool:
    called = loss.forward if isinstance(loss, torch.nn.Module) else loss
    try:
        arguments = inspect.signature(called).parameters
    except (TypeError, ValueError):  # a builtin without a signature: let the call tell
        return True
    return "ignore_index" in arguments or any(
        argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments.values()
    )


@dataclass(frozen=True)
class ChunkRow:
    """One loss on one prediction on one chunk.

    ``absent`` says why there is nothing to measure; then all the measurements are ``None``.
    """

    chunk: str
    prediction: str
    value: float | None = None
    largest_gradient: float | None = None
    finite: bool | None = None
    gradient_is_zero: bool | None = None
    absent: str | None = None


@dataclass(frozen=True)
class ChunkTable:
    """The measurements of a loss on chunks and predictions: a table to look at and to assert on."""

    loss: str
    rows: tuple[ChunkRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ChunkRow]:
        return iter(self.rows)

    @property
    def present(self) -> tuple[ChunkRow, ...]:
        """The rows that were measured."""
        return tuple(row for row in self.rows if row.absent is None)

    @property
    def all_finite(self) -> bool:
        """Whether every measured value and every entry of every gradient is finite."""
        return all(row.finite for row in self.present)

    def row(self, chunk: str, prediction: str) -> ChunkRow:
        """Return the row of a chunk and a prediction."""
        for row in self.rows:
            if (row.chunk, row.prediction) == (chunk, prediction):
                return row
        raise KeyError(
            f"the table of {self.loss} has no chunk {chunk!r} with a prediction {prediction!r}; "
            f"it has the chunks {', '.join(self._names('chunk'))} and the predictions "
            f"{', '.join(self._names('prediction'))}"
        )

    def value(self, chunk: str, prediction: str) -> float:
        """Return the loss's value; raise where the chunk has no such prediction."""
        row = self.row(chunk, prediction)
        if row.value is None:
            raise ValueError(f"{prediction!r} on {chunk!r} has no value: {row.absent}")
        return row.value

    def _names(self, field: str) -> list[str]:
        return list(dict.fromkeys(getattr(row, field) for row in self.rows))

    def _absences(self) -> list[str]:
        """Say what is absent and why, predictions with the same reason and chunks together."""
        chunks: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            if row.absent is not None:
                chunks.setdefault((row.absent, row.prediction), []).append(_words(row.chunk))
        alike: dict[tuple[str, str], list[str]] = {}
        for (reason, prediction), places in chunks.items():
            alike.setdefault((reason, ", ".join(places)), []).append(_words(prediction))
        return [
            f"{', '.join(names)} on {places} ({reason})"
            for (reason, places), names in alike.items()
        ]

    def _cells(self, row: ChunkRow) -> tuple[str, str]:
        if row.absent is not None:
            return "–", ""
        if not row.finite:
            return _number(row.value), f"gradient {_power(row.largest_gradient)}"
        return _number(row.value), _power(row.largest_gradient)

    _LEGEND = (
        "Upper number: value of the loss. Lower number: largest entry of |∂L/∂z|, a bold 0 where "
        "there is no gradient at all. Not finite: white on red."
    )

    def _repr_html_(self) -> str:
        predictions = self._names("prediction")
        # "dataframe" is the class that Jupyter and the book's theme style, light and dark.
        style = "font-size:0.75rem; font-variant-numeric:tabular-nums; line-height:1.3"
        parts = [
            f'<div style="overflow-x:auto"><table class="dataframe chunk-table" style="{style}">',
            f"<thead><tr><th>{html.escape(self.loss)}</th>",
            *(
                f'<th scope="col" style="text-align:right">{_words(name).replace(" ", "<br>")}</th>'
                for name in predictions
            ),
            "</tr></thead><tbody>",
        ]
        for chunk in self._names("chunk"):
            parts.append(
                f'<tr><th scope="row" style="text-align:left">{html.escape(_words(chunk))}</th>'
            )
            for prediction in predictions:
                row = self.row(chunk, prediction)
                value, gradient = self._cells(row)
                small = f'<span style="font-size:0.9em; opacity:0.85">{gradient}</span>'
                if row.gradient_is_zero:
                    small = f"<strong>{gradient}</strong>"
                tint, title = "", row.absent or ""
                if row.finite is False:
                    tint = "; background:#9C2F00; color:#FFFFFF; font-weight:bold"
                    title = "not finite"
                parts.append(
                    f'<td style="text-align:right; padding:0.15rem 0.3rem{tint}"'
                    + (f' title="{html.escape(title)}"' if title else "")
                    + (f">{value}<br>{small}</td>" if gradient else f">{value}</td>")
                )
            parts.append("</tr>")
        notes = [self._LEGEND]
        if self._absences():
            notes.append("–: " + "; ".join(self._absences()) + ".")
        parts.append("</tbody></table></div>")
        parts += [
            f'<p style="font-size:0.8rem; margin:0.4rem 0">{html.escape(note)}</p>'
            for note in notes
        ]
        return "".join(parts)

    def _repr_markdown_(self) -> str:
        predictions = self._names("prediction")
        lines = [
            f"| {self.loss} | " + " | ".join(_words(name) for name in predictions) + " |",
            "| :--- |" + " ---: |" * len(predictions),
        ]
        for chunk in self._names("chunk"):
            cells = []
            for prediction in predictions:
                row = self.row(chunk, prediction)
                value, gradient = self._cells(row)
                loud = row.finite is False or row.gradient_is_zero
                gradient = f"**{gradient}**" if loud else gradient
                cells.append(f"{value} ({gradient})" if row.absent is None else value)
            lines.append(f"| {_words(chunk)} | " + " | ".join(cells) + " |")
        lines += ["", "Value of the loss, and in brackets the largest entry of the gradient."]
        if self._absences():
            lines += ["", "–: " + "; ".join(self._absences()) + "."]
        return "\n".join(lines)

    def __str__(self) -> str:
        predictions = self._names("prediction")
        grid = [[self.loss, *(_words(name) for name in predictions)]]
        for chunk in self._names("chunk"):
            cells = (self._cells(self.row(chunk, prediction)) for prediction in predictions)
            grid.append([_words(chunk), *(f"{v} ({g})" if g else v for v, g in cells)])
        widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
        return "\n".join(
            line[0].ljust(widths[0])
            + "".join(f"  {cell.rjust(w)}" for cell, w in zip(line[1:], widths[1:], strict=True))
            for line in grid
        )

    __repr__ = __str__


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    """Three significant digits, short enough for a narrow column."""
    if value is None:
        return "–"
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:#.3g}".removesuffix(".") if abs(value) < 999.5 else f"{value:.0f}"
    return _power(value)


def _power(value: float | None) -> str:
    """Two significant digits and a power of ten, as suits a gradient."""
    if value is None or not math.isfinite(value) or value == 0:
        return _number(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")


def chunk_table(
    loss: Callable[..., Tensor],
    chunks: Mapping[str, Chunk] | Iterable[Chunk],
    names: Iterable[str] | None = None,
    *,
    confidence: float = 4.0,
    pixels: int = 2,
    channels: int | None = None,
    dtype: torch.dtype = torch.float32,
    **parameters: Any,
) -> ChunkTable:
    """Measure a loss on every chunk and every prediction: value, gradient, finite or not.

    Args:
        loss: a function or module, called as ``loss(logits, target, **parameters)`` and with
            ``ignore_index`` on chunks that need it. If it does not take one, those rows are absent.
        chunks: from ``find_chunks`` or ``chunks_of``.
        names: which predictions (keys of ``PREDICTIONS``), default all.
        confidence, pixels, channels, dtype: see ``predictions``.
        parameters: passed on to the loss.
    """
    rows: list[ChunkRow] = []
    for chunk in _as_chunks(chunks):
        unable = chunk.ignore_index is not None and not _takes_ignore_index(loss)
        made = predictions(
            chunk,
            confidence=confidence,
            pixels=pixels,
            channels=channels,
            names=names,
            dtype=dtype,
        )
        for name, prediction in made.items():
            absent = f"{_name_of(loss)} takes no ignore_index" if unable else prediction.absent
            if absent is not None or prediction.logits is None:
                rows.append(ChunkRow(chunk.name, name, absent=absent))
                continue
            value, gradient = evaluate(loss, chunk, prediction.logits, **parameters)
            # max() hides NaN behind nothing: torch returns NaN if there is one.
            largest = float(gradient.abs().max())
            rows.append(
                ChunkRow(
                    chunk.name,
                    name,
                    value=value,
                    largest_gradient=largest,
                    finite=math.isfinite(value) and math.isfinite(largest),
                    gradient_is_zero=largest == 0,
                )
            )
    return ChunkTable(_name_of(loss), tuple(rows))


def _as_chunks(chunks: Mapping[str, Chunk] | Iterable[Chunk]) -> list[Chunk]:
    chosen = list(chunks.values() if isinstance(chunks, Mapping) else chunks)
    if not chosen or not all(isinstance(chunk, Chunk) for chunk in chosen):
        raise TypeError(
            "chunks must hold at least one Chunk and nothing else; find_chunks and chunks_of "
            "return such a collection"
        )
    return chosen


# ------------------------------------------------------------------ pictures


def _probability(logits: Tensor) -> np.ndarray:
    """Probability that the pixel is foreground: (rows, columns)."""
    logits = logits.detach().double()[0]
    if logits.shape[0] == 1:
        return logits[0].sigmoid().numpy()
    return 1 - logits.softmax(dim=0)[0].numpy()


def _gradient_shown(chunk: Chunk, gradient: Tensor) -> np.ndarray:
    """Pick the gradient of the one logit, or of the logit of the label's class."""
    entries = gradient[0].double()
    if entries.shape[0] == 1:
        return entries[0].numpy()
    label = np.where(chunk.target == chunk.ignore_index, chunk.truth, chunk.target)
    return entries.gather(0, torch.tensor(label)[None])[0].numpy()


def _note(ax: Any, text: str) -> None:
    """Write in the middle of an empty panel, broken into lines that fit."""
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) > 16 and line:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    ax.text(
        0.5,
        0.5,
        "\n".join([*lines, line]),
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )


def show_chunks(
    chunks: Mapping[str, Chunk] | Iterable[Chunk], *, columns: int = 5, brighten: bool = True
) -> Figure:
    """Draw the chunks with their labels, each under its name and "found" or "made"."""
    chosen = _as_chunks(chunks)
    rows = math.ceil(len(chosen) / columns)
    figure, axes = plots.panels(rows, columns, head=0.45)
    for ax, chunk in zip(axes.ravel(), chosen, strict=False):
        plots.show_mask(
            ax,
            chunk.image,
            chunk.target,
            ignore_index=chunk.ignore_index,
            brighten=brighten,
            title=f"{_words(chunk.name)}\n{'found' if chunk.found else 'made'}",
        )
    for ax in axes.ravel()[len(chosen) :]:
        ax.axis("off")
    return figure


def show_predictions(chunk: Chunk, *, columns: int = 5, **options: Any) -> Figure:
    """Draw every named prediction on a chunk: probability of foreground, the label outlined."""
    made = predictions(chunk, **options)
    rows = math.ceil((len(made) + 1) / columns)
    figure, axes = plots.panels(rows, columns)
    flat = axes.ravel()
    plots.show_mask(
        flat[0],
        chunk.image,
        chunk.target,
        ignore_index=chunk.ignore_index,
        brighten=True,
        title="label",
    )
    for ax, (name, prediction) in zip(flat[1:], made.items(), strict=False):
        _draw_prediction(ax, chunk, prediction)
        ax.set_title(_words(name))
    for ax in flat[len(made) + 1 :]:
        ax.axis("off")
    return figure


def _draw_prediction(ax: Any, chunk: Chunk, prediction: Prediction) -> None:
    if prediction.logits is None:
        plots.probability_map(ax, np.zeros(chunk.truth.shape))
        _note(ax, f"none: {prediction.absent}")
        return
    plots.probability_map(ax, _probability(prediction.logits))
    ignored = chunk.target == chunk.ignore_index
    front = (chunk.target > 0) & ~ignored
    plots.outline(ax, front, plots.CLASS_COLOURS[0])
    if ignored.any():
        plots.hatch(ax, ignored)


def chunk_grid(
    loss: Callable[..., Tensor],
    chunks: Mapping[str, Chunk] | Iterable[Chunk],
    prediction: str = "shifted",
    *,
    columns: int = 5,
    shared_scale: bool = False,
    confidence: float = 4.0,
    pixels: int = 2,
    channels: int | None = None,
    **parameters: Any,
) -> Figure:
    """Draw a loss on one prediction on every chunk: label, prediction, gradient.

    Each chunk is a column of three pictures under its name and the loss's value: the image with
    its label; the predicted probability of foreground (white 0, black 1) with the label's
    outline; the gradient of the loss. Where it is vermillion a descent step raises the logit, where
    it is blue it lowers it, where it is white nothing happens. With several channels it is the
    gradient of the logit of the label's own class. Every map has its own scale, whose end is
    written below, or all have one (``shared_scale``).

    Args:
        loss, chunks, confidence, pixels, channels, parameters: as for ``chunk_table``.
        prediction: a key of ``PREDICTIONS``.
        columns: chunks side by side.
        shared_scale: one scale for all gradient maps.
    """
    chosen = _as_chunks(chunks)
    check_names("chunk_grid", "prediction", prediction, PREDICTIONS)
    results: list[tuple[Prediction, float, np.ndarray] | tuple[Prediction, None, None]] = []
    for chunk in chosen:
        made = predictions(
            chunk, confidence=confidence, pixels=pixels, channels=channels, names=[prediction]
        )[prediction]
        if chunk.ignore_index is not None and not _takes_ignore_index(loss):
            made = Prediction(prediction, None, absent="the loss takes no ignore_index")
        if made.logits is None:
            results.append((made, None, None))
            continue
        value, gradient = evaluate(loss, chunk, made.logits, **parameters)
        results.append((made, value, _gradient_shown(chunk, gradient)))
    limits = [_largest(gradient) for _, _, gradient in results if gradient is not None]
    shared = max(limits, default=0.0)

    bands = math.ceil(len(chosen) / columns)
    figure, axes = plots.panels(3 * bands, columns, head=0.22)
    drawn = None
    for place, (chunk, (made, value, gradient)) in enumerate(zip(chosen, results, strict=True)):
        band, column = divmod(place, columns)
        top, middle, bottom = axes[3 * band : 3 * band + 3, column]
        score = "" if value is None else f"\nL = {_number(value)}"
        plots.show_mask(
            top,
            chunk.image,
            chunk.target,
            ignore_index=chunk.ignore_index,
            brighten=True,
            title=_words(chunk.name) + score,
        )
        _draw_prediction(middle, chunk, made)
        if gradient is None:
            bottom.set(xticks=[], yticks=[])
            bottom.grid(visible=False)
            bottom.spines[:].set_visible(False)
            continue
        limit = shared if shared_scale else _largest(gradient)
        drawn = plots.gradient_map(bottom, gradient, limit=limit)
        if chunk.ignore_index is not None:
            plots.hatch(bottom, chunk.target == chunk.ignore_index)
        if not np.isfinite(gradient).all():
            _note(bottom, "not finite")
        elif limit == 0 or not gradient.any():
            _note(bottom, "no gradient")
        elif not shared_scale:
            bottom.set_xlabel(f"max {_power(limit)}", fontsize=8, labelpad=2)
    for band in range(bands):
        for offset, text in enumerate(("label", _words(prediction), "gradient")):
            axes[3 * band + offset, 0].set_ylabel(text, fontsize=9)
        for column in range(columns):
            if band * columns + column >= len(chosen):
                for ax in axes[3 * band : 3 * band + 3, column]:
                    ax.axis("off")
    if drawn is not None:
        end = drawn.get_clim()[1]
        scale = plots.colour_bar(
            figure,
            drawn,
            axes,
            label="gradient ∂L/∂z: negative, a step raises the logit; positive, it lowers it",
            ticks=[-end, 0, end],
        )
        ends = _power(shared) if shared_scale else "max"
        scale.ax.set_xticklabels([f"−{ends}", "0", f"+{ends}"])
    return figure


def _largest(gradient: np.ndarray) -> float:
    finite = np.abs(gradient[np.isfinite(gradient)])
    return float(finite.max()) if finite.size else 0.0


# ------------------------------------------------------------------ both together


@dataclass(frozen=True, eq=False)
class ChunkReport:
    """A loss on chunks: ``table``, and ``grid(prediction)`` for the pictures.

    As the last line of a notebook cell it shows the table and the grid of "shifted". A cell with
    a captioned figure shows one thing: ``report.table`` in one, ``report.grid(…)`` in another.
    """

    loss: Callable[..., Tensor]
    chunks: Mapping[str, Chunk]
    table: ChunkTable
    options: Mapping[str, Any]

    def grid(self, prediction: str = "shifted", **options: Any) -> Figure:
        """Draw ``chunk_grid`` of one prediction; ``options`` override those of ``on_chunks``."""
        return chunk_grid(self.loss, self.chunks, prediction, **{**self.options, **options})

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.table)
        figure = self.grid()
        display(figure)
        plots.plt.close(figure)


def on_chunks(
    loss: Callable[..., Tensor],
    chunks: str | Sample | Mapping[str, Chunk] | Iterable[Chunk] = "nuclei",
    *,
    names: Iterable[str] | None = None,
    confidence: float = 4.0,
    pixels: int = 2,
    channels: int | None = None,
    **parameters: Any,
) -> ChunkReport:
    """Run a loss on every chunk and every prediction; see the table and the pictures.

    Args:
        loss: a function or module, called as ``loss(logits, target, **parameters)``.
        chunks: the name of a source (``lab.data.SOURCES``), a sample, or chunks.
        names: which predictions (keys of ``PREDICTIONS``), default all.
        confidence, pixels, channels: see ``predictions``.
        parameters: passed on to the loss.

    Returns:
        A report with ``table`` (to show and to assert on) and ``grid(prediction)``.
    """
    if isinstance(chunks, (str, Sample)):
        chunks = chunks_of(chunks)
    chosen = {chunk.name: chunk for chunk in _as_chunks(chunks)}
    options = {"confidence": confidence, "pixels": pixels, "channels": channels, **parameters}
    table = chunk_table(loss, chosen, names, **options)
    return ChunkReport(loss, chosen, table, options)


# ------------------------------------------------------------------ the whole and its parts


@dataclass(frozen=True, eq=False)
class WholeVersusCrops:
    """A loss on a whole image and on its crops.

    Attributes:
        loss: its name.
        whole: its value on the whole image.
        crops: its value on every crop, in the crops' places: (rows, columns).
        mean_of_crops: their mean, every crop counting alike, as in a batch of crops.
        size: side of a crop in pixels.
        prediction: the named prediction.
    """

    loss: str
    whole: float
    crops: NDArray[np.float64]
    size: int
    prediction: str

    @property
    def mean_of_crops(self) -> float:
        """The mean over the crops."""
        return float(self.crops.mean())

    @property
    def difference(self) -> float:
        """Mean over the crops minus the value on the whole image."""
        return self.mean_of_crops - self.whole

    def _repr_markdown_(self) -> str:
        rows, columns = self.crops.shape
        return "\n".join(
            [
                f"| {self.loss}, “{_words(self.prediction)}” | value |",
                "| :--- | ---: |",
                f"| whole image | {self.whole:.6f} |",
                f"| mean over {rows} × {columns} crops of {self.size} px | "
                f"{self.mean_of_crops:.6f} |",
                f"| difference | {self.difference:+.6f} |",
            ]
        )


def whole_versus_crops(
    loss: Callable[..., Tensor],
    sample: str | Sample = "nuclei",
    size: int = 64,
    *,
    prediction: str = "dilated",
    confidence: float = 4.0,
    pixels: int = 2,
    channels: int | None = None,
    **parameters: Any,
) -> WholeVersusCrops:
    """Compare a loss on a whole image with its mean over crops that tile it.

    The mean over pixels is the same either way; a ratio of sums is not. The image is cut at the
    bottom and on the right to a multiple of ``size``; the prediction is made on the whole of it and
    cropped with it.

    Args:
        loss: a function or module, called as ``loss(logits, target, **parameters)``.
        sample: a 2-D sample, or the name of a source.
        size: side of the crops in pixels.
        prediction: a key of ``PREDICTIONS`` that the image has.
        confidence, pixels, channels: see ``predictions``.
        parameters: passed on to the loss.
    """
    sample = load(sample) if isinstance(sample, str) else sample
    if sample.mask.ndim != 2:
        raise ValueError(
            f"whole_versus_crops: {sample.name} has shape {sample.mask.shape}, wanted a 2-D sample"
        )
    if size != int(size) or not 1 <= size <= min(sample.mask.shape):
        raise ValueError(
            f"whole_versus_crops: size is {size}, wanted a whole number from 1 to the image's "
            f"shorter side, {min(sample.mask.shape)}"
        )
    rows, columns = (n // size for n in sample.mask.shape)
    truth = sample.mask[: rows * size, : columns * size].copy()
    whole = Chunk(
        name="whole",
        image=sample.image[: rows * size, : columns * size].copy(),
        target=truth,
        truth=truth,
        num_classes=sample.num_classes,
        ignore_index=None,
        origin=(0, 0),
        found=True,
        how="the whole image",
        description="the whole image",
    )
    logits = predict(whole, prediction, confidence=confidence, pixels=pixels, channels=channels)
    target = whole.tensors()[1]

    def value(logits: Tensor, target: Tensor) -> float:
        with torch.no_grad():
            return float(loss(logits, target, **parameters))

    values = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            part = (
                ...,
                slice(row * size, (row + 1) * size),
                slice(column * size, (column + 1) * size),
            )
            values[row, column] = value(logits[part], target[part])
    return WholeVersusCrops(_name_of(loss), value(logits, target), values, size, prediction)
