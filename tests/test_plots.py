"""The book's look: what the helpers draw, and that the colours can be told apart."""

import io
import logging
import math
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

mpl.use("agg")

from seglosses_nb.lab import data, plots

plt = plots.plt


@pytest.fixture(autouse=True)
def _clean():
    with mpl.rc_context():
        plots.use_style()
        yield
        plt.close("all")


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(colour, ground="white"):
    light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def deuteranope(colour):
    """Simulate the most common colour vision deficiency (Machado et al. 2009, severity 1)."""
    matrix = np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    )
    linear = np.array(
        [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    )
    return np.clip(matrix @ linear, 0, 1) ** (1 / 2.2)


# ------------------------------------------------------------------ the style


def test_style_is_a_white_card_with_the_okabe_ito_cycle(caplog):
    figure, ax = plt.subplots()
    ax.plot([0, 1])
    ax.set(title="$L = 1 - D$", xlabel="$p_i$", ylabel="Ω ∂ ≤ −")
    with caplog.at_level(logging.WARNING):
        picture = np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGBA"))
    assert not caplog.records, "missing fonts or glyphs end up on stderr, which the build refuses"
    assert (picture[0, 0] == 255).all(), "white and opaque, for dark pages too"
    assert mpl.rcParams["figure.dpi"] >= 150
    cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    assert cycle[0] == plots.COLOURS["blue"]
    assert set(cycle) < set(plots.COLOURS.values())
    assert plots.COLOURS["yellow"] not in cycle, "cannot be seen on white"


def test_fonts_stay_readable_on_the_page():
    # A full-width figure is shown at about 740 of its 1080 pixels: 72 points are 105 px then.
    shrink = 740 / (plots.PAGE_WIDTH * 150)
    for key in ("font.size", "axes.labelsize", "xtick.labelsize", "legend.fontsize"):
        pixels = mpl.rcParams[key] / 72 * 150 * shrink
        assert pixels >= 12, key


def test_colours_can_be_told_apart():
    cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    for see in (lambda c: np.array(to_rgb(c)), deuteranope):
        for i, first in enumerate(cycle):
            for second in cycle[i + 1 :]:
                assert np.linalg.norm(see(first) - see(second)) > 0.15, (first, second)


def test_gradient_map_is_symmetric_around_white():
    middle = plots.GRADIENT_MAP(0.5)
    assert min(middle[:3]) > 0.98
    for distance in (0.1, 0.25, 0.4, 0.5):
        low, high = plots.GRADIENT_MAP(0.5 - distance), plots.GRADIENT_MAP(0.5 + distance)
        assert low[0] > low[2], "vermillion below zero"
        assert high[2] > high[0], "blue above"
        assert luminance(low[:3]) == pytest.approx(luminance(high[:3]), abs=0.12)
        assert np.linalg.norm(deuteranope(low[:3]) - deuteranope(high[:3])) > 0.2
    darkness = [luminance(plots.GRADIENT_MAP(0.5 + d)[:3]) for d in np.linspace(0, 0.49, 20)]
    assert all(a >= b - 1e-6 for a, b in pairwise(darkness))


# ------------------------------------------------------------------ pictures


def test_mask_outlines_run_along_pixel_edges():
    mask = np.zeros((6, 8), int)
    mask[2:4, 3:6] = 1
    mask[0, 0] = 2
    _, ax = plt.subplots()
    plots.show_mask(ax, np.zeros((6, 8)), mask, class_names=("background", "cell", "speck"))
    first, second = (
        {tuple(map(tuple, segment)) for segment in lines.get_segments()} for lines in ax.collections
    )
    length = sum(math.dist(*segment) for segment in first)
    assert length == 2 * (2 + 3)
    xs = {x for segment in first for x, _ in segment}
    ys = {y for segment in first for _, y in segment}
    assert (min(xs), max(xs), min(ys), max(ys)) == (2.5, 5.5, 1.5, 3.5)
    assert len(second) == 4
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cell", "speck"]
    tint = ax.images[1].get_array()
    assert (tint[mask == 0][:, 3] == 0).all()
    assert np.allclose(tint[2, 3], mpl.colors.to_rgba(plots.CLASS_COLOURS[0], 0.25))
    assert np.allclose(tint[0, 0], mpl.colors.to_rgba(plots.CLASS_COLOURS[1], 0.25))


def test_ignored_pixels_are_hatched_and_change_no_limits():
    mask = np.zeros((8, 8), int)
    mask[:, :2] = 255
    mask[4, 4] = 1
    _, ax = plt.subplots()
    plots.show_mask(ax, np.ones((8, 8)), mask, ignore_index=255, legend=True)
    assert ax.get_xlim() == (-0.5, 7.5)
    assert ax.get_ylim() == (7.5, -0.5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["class 1", "ignored"]
    assert any(getattr(c, "hatches", None) == ["////"] for c in ax.collections)


def test_a_mask_alone_and_a_mask_without_foreground():
    _, (left, right) = plt.subplots(1, 2)
    plots.show_mask(left, None, torch.ones(1, 4, 4, dtype=torch.long))
    assert (left.images[0].get_array() == 1).all()
    plots.show_mask(right, np.zeros((4, 4)), np.zeros((4, 4), int), class_names=("nothing",))
    assert right.get_legend() is None


def test_brighten_makes_dark_images_visible():
    sample = data.nuclei()
    _, (left, right) = plt.subplots(1, 2)
    assert plots.show_image(left, sample.image).get_clim() == (0, 1)
    low, high = plots.show_image(right, sample.image, brighten=True).get_clim()
    assert low == 0
    assert high == pytest.approx(np.percentile(sample.image, 99.5))
    plots.show_image(left, np.zeros((4, 4)), brighten=True)  # black stays black, no warning


def test_gradient_map_scales():
    _, ax = plt.subplots()
    gradient = torch.tensor([[[[-3.0, 1.0], [0.0, 2.0]]]])
    assert plots.gradient_map(ax, gradient).get_clim() == (-3, 3)
    assert plots.gradient_map(ax, gradient, limit=5).get_clim() == (-5, 5)
    assert plots.gradient_map(ax, torch.zeros(2, 2)).get_clim() == (-1, 1)
    broken = torch.tensor([[float("nan"), float("inf")], [-2.0, 1.0]])
    assert plots.gradient_map(ax, broken).get_clim() == (-2, 2)
    assert plots.gradient_map(ax, torch.full((2, 2), float("nan"))).get_clim() == (-1, 1)


def test_probability_map_runs_from_white_to_black():
    figure, axes = plots.panels(1, 1)
    drawn = plots.probability_map(axes[0, 0], torch.tensor([[0.0, 1.0]]), title="p")
    assert drawn.get_clim() == (0, 1)
    assert luminance(drawn.cmap(0.0)[:3]) > 0.99
    assert luminance(drawn.cmap(1.0)[:3]) < 0.01
    bar = plots.colour_bar(figure, drawn, axes, label="probability", ticks=[0, 1])
    assert bar.ax.get_xlabel() == "probability"
    assert bar.orientation == "horizontal"


def test_panels_are_always_a_grid():
    figure, axes = plots.panels(1, 3)
    assert axes.shape == (1, 3)
    assert figure.get_figwidth() == plots.PAGE_WIDTH
    assert plots.panels(2, 1)[1].shape == (2, 1)
    with pytest.raises(ValueError, match="0 rows and 3 columns"):
        plots.panels(0, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ax: plots.show_image(ax, np.zeros((2, 4, 4))), r"image has shape \(2, 4, 4\)"),
        (lambda ax: plots.show_mask(ax, np.zeros((4, 5)), np.zeros((4, 4), int)), r"\(4, 5\) but"),
        (lambda ax: plots.gradient_map(ax, np.zeros((4, 4)), limit=-1), "limit is -1"),
        (lambda ax: plots.curve(ax, [0, 1], [0, 1, 2]), r"x has shape \(2,\) and y has \(3,\)"),
    ],
)
def test_bad_arguments(call, message):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=message):
        call(ax)


# ------------------------------------------------------------------ curves


def test_curve_is_named_at_its_last_finite_point():
    figure, ax = plt.subplots()
    x = torch.linspace(0, 1, 5)
    y = torch.tensor([0.0, 1.0, 2.0, 3.0, float("inf")], requires_grad=True)
    plots.curve(ax, x, y, "Dice", xlabel="$p$", ylabel="$L$", title="one line")
    (note,) = ax.texts
    assert note.get_text() == "Dice"
    assert note.xy == (0.75, 3.0)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("$p$", "$L$", "one line")
    png(figure)
    plots.curve(ax, x, x)
    assert len(ax.texts) == 1, "no name, no note"
    plots.curve(ax, x, x, "in the middle", at=0.4)
    assert ax.texts[1].xy == (0.5, 0.5)


@pytest.mark.parametrize("colour", ["blue", "vermillion", "green", "orange", "purple", "sky"])
def test_names_of_curves_have_enough_contrast(colour):
    _, ax = plt.subplots()
    plots.curve(ax, [0, 1], [0, 1], "name", color=plots.COLOURS[colour])
    assert contrast(ax.texts[0].get_color()) >= 4.5
