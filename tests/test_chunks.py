"""The edge cases have the property of their name, wherever they come from, and so have predictions.

The properties are checked with scipy, scikit-image and cc3d, not with the code that finds them.
"""

import doctest
import re
import subprocess
import sys
import time
from itertools import pairwise

import cc3d
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.measure import euler_number

from seglosses_nb import BinaryCrossEntropy, binary_cross_entropy, cross_entropy, dice_loss
from seglosses_nb.lab import chunks, data, edge_cases, plots

SOURCES = ("nuclei", "brain", "lesions", "vessels", "retina")


def components(front):
    return cc3d.connected_components(front.astype(np.uint8), connectivity=8)


def areas(front):
    return np.sort(np.bincount(components(front).ravel())[1:])


def hole_area(front):
    filled = ndimage.binary_fill_holes(front)
    return int((filled & ~front).sum())


def rim(front):
    return int(front.sum() - front[1:-1, 1:-1].sum())


def has_property(name, chunk):
    """Say whether the chunk is what its name says."""
    front = chunk.truth > 0
    if name == "empty":
        return not front.any()
    if name == "full":
        return chunk.truth.min() == chunk.truth.max() > 0
    if name == "one_pixel":
        return front.sum() == 1
    if name == "thin_line":
        thin = not ndimage.binary_erosion(front, np.ones((2, 2))).any()
        return thin and len(areas(front)) == 1 and front.sum() >= 5
    if name == "border":
        return len(areas(front)) == 1 and rim(front) > 0 and not front.all()
    if name == "two_unequal":
        found = areas(front)
        return len(found) == 2 and found[0] >= 4 and found[1] >= 3 * found[0]
    if name == "ring":
        one = len(areas(front)) == 1 and euler_number(front, connectivity=2) == 0
        return one and hole_area(front) >= 4
    if name == "ignored_strip":
        ignored = chunk.target == chunk.ignore_index
        agree = (chunk.target == chunk.truth)[~ignored].all()
        return agree and 0.05 <= ignored.mean() <= 0.6
    if name == "label_noise":
        return (chunk.target != chunk.truth).any() and chunk.ignore_index is None
    assert name == "saturated"
    return chunk.confidence == 1e4


def check_chunk(name, chunk):
    assert chunk.name == name
    assert has_property(name, chunk), f"{name}: {chunk.how}"
    assert chunk.image.shape == chunk.target.shape == chunk.truth.shape
    assert chunk.image.dtype == np.float32
    assert chunk.target.dtype == chunk.truth.dtype == np.int64
    assert 0 <= chunk.image.min() <= chunk.image.max() <= 1
    assert 0 <= chunk.truth.min() <= chunk.truth.max() < chunk.num_classes
    assert chunk.description == chunks.CHUNKS[name]
    if chunk.ignore_index is None:
        assert chunk.target.max() < chunk.num_classes
    if name not in ("ignored_strip", "label_noise"):
        np.testing.assert_array_equal(chunk.target, chunk.truth)


@pytest.mark.parametrize("module", [chunks, data])
def test_examples_in_the_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


# ------------------------------------------------------------------ on the real images


@pytest.fixture(scope="module", params=SOURCES)
def picture(request):
    sample = data.load(request.param)
    return sample, chunks.chunks_of(sample)


def test_every_chunk_is_what_its_name_says(picture):
    _, found = picture
    assert list(found) == list(chunks.CHUNKS)
    for name, chunk in found.items():
        check_chunk(name, chunk)


def test_a_found_chunk_is_the_picture_and_says_where(picture):
    sample, found = picture
    for chunk in found.values():
        row, column = chunk.origin
        size = len(chunk.truth)
        window = (slice(row, row + size), slice(column, column + size))
        np.testing.assert_array_equal(chunk.image, sample.image[window])
        place = re.search(r"rows (\d+) to (\d+), columns (\d+) to (\d+)", chunk.how)
        if chunk.name != "full" or not chunk.found:
            assert size == 32
        assert [int(g) for g in place.groups()] == [row, row + size - 1, column, column + size - 1]
        if chunk.found:
            assert chunk.how.startswith("found at")
            np.testing.assert_array_equal(chunk.target, sample.mask[window])
            if sample.instances is not None:
                np.testing.assert_array_equal(chunk.instances, sample.instances[window])
        else:
            assert re.match(r"made from rows .*: \w+", chunk.how)
            assert (chunk.target != sample.mask[window]).any()
            assert chunk.instances is None


WHAT_IS_MADE = {
    # besides the ignored strip and the label noise, which these pictures do not have
    "nuclei": {"ring"},
    "brain": {"ring"},
    "lesions": {"two_unequal", "ring"},
    "vessels": set(),
    "retina": set(),
}


def test_chunks_are_real_wherever_they_can_be(picture):
    sample, found = picture
    made = {name for name, chunk in found.items() if not chunk.found}
    assert made == WHAT_IS_MADE[sample.name] | {"ignored_strip", "label_noise"}


def test_two_nuclei_are_two_instances():
    found = chunks.chunks_of("nuclei")
    for name, count in (("two_unequal", 2), ("border", 1), ("one_pixel", 1), ("thin_line", 1)):
        chunk = found[name]
        assert len(np.unique(chunk.instances[chunk.truth > 0])) == count


def test_a_border_object_goes_on_outside():
    for source in SOURCES:
        sample = data.load(source)
        chunk = chunks.chunks_of(sample)["border"]
        assert chunk.found
        row, column = chunk.origin
        around = np.zeros(sample.mask.shape, bool)
        around[max(row - 1, 0) : row + 33, max(column - 1, 0) : column + 33] = True
        around[row : row + 32, column : column + 32] = False
        inside = np.zeros_like(around)
        inside[row : row + 32, column : column + 32] = chunk.truth > 0
        touching = ndimage.binary_dilation(inside, np.ones((3, 3))) & around
        at_edge = row == 0 or column == 0 or row + 32 == around.shape[0]
        assert (sample.mask[touching] > 0).any() or at_edge


def test_label_noise_sits_on_the_outlines():
    for source in SOURCES:
        chunk = chunks.chunks_of(source)["label_noise"]
        wrong = chunk.target != chunk.truth
        outline = np.zeros_like(wrong)
        for axis in (0, 1):
            differs = np.diff(chunk.truth, axis=axis) != 0
            pad = [(0, 0), (0, 0)]
            pad[axis] = (0, 1)
            outline |= np.pad(differs, pad)
            pad[axis] = (1, 0)
            outline |= np.pad(differs, pad)
        assert not (wrong & ~outline).any()
        assert 0.35 < wrong.sum() / outline.sum() < 0.65


def test_ignored_strip_hides_foreground_and_leaves_some():
    for source in SOURCES:
        chunk = chunks.chunks_of(source)["ignored_strip"]
        assert chunk.ignore_index == 255
        assert (chunk.target[:, :8] == 255).all()
        assert (chunk.truth[:, :8] > 0).any()
        assert (chunk.target[:, 8:] > 0).any()


@pytest.mark.parametrize("source", SOURCES)
def test_finding_is_quick_and_repeats_exactly(source):
    sample = data.load(source)
    start = time.perf_counter()
    first = chunks.chunks_of(sample)
    took = time.perf_counter() - start
    assert took < 3, "about 0.5 s for the largest picture; leave room for a busy machine"
    second = chunks.chunks_of(sample)
    for name in chunks.CHUNKS:
        assert first[name].how == second[name].how
        np.testing.assert_array_equal(first[name].target, second[name].target)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("source", ["lesions", "vessels"])
def test_chunks_of_other_seeds(source, seed):
    found = chunks.chunks_of(data.load(source, seed=seed))
    for name, chunk in found.items():
        check_chunk(name, chunk)


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
@pytest.mark.parametrize("size", [16, 24, 48])
def test_chunks_of_other_planes_and_sizes(plane, size):
    found = chunks.chunks_of(data.load("brain", plane=plane), size=size)
    for name, chunk in found.items():
        check_chunk(name, chunk)


# ------------------------------------------------------------------ on any image


@st.composite
def scenes(draw):
    """Draw an image with a mask: noise, or smooth blobs, with zero to three foreground classes."""
    rows, columns = draw(st.integers(16, 40)), draw(st.integers(16, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    classes = draw(st.integers(1, 3))
    smooth = draw(st.sampled_from([0, 1, 2, 4]))
    share = draw(st.sampled_from([0, 0.01, 0.1, 0.3, 0.5, 0.8, 0.99, 1]))
    field = ndimage.gaussian_filter(rng.normal(size=(rows, columns)), smooth)
    front = field >= np.quantile(field, 1 - share) if share else np.zeros(field.shape, bool)
    labels = rng.integers(1, classes + 1, size=field.shape)
    if smooth:
        labels = 1 + (ndimage.gaussian_filter(labels.astype(float), 2) * 97).astype(int) % classes
    return rng.random((rows, columns)), np.where(front, labels, 0), classes + 1


@settings(max_examples=120, deadline=None)
@given(scenes())
def test_every_chunk_is_made_from_any_image(scene):
    image, mask, num_classes = scene
    found = chunks.find_chunks(image, mask, size=16, num_classes=num_classes)
    assert list(found) == list(chunks.CHUNKS)
    for name, chunk in found.items():
        check_chunk(name, chunk)
        for prediction in chunks.predictions(chunk).values():
            assert (prediction.logits is None) == (prediction.absent is not None)


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.uint8, (20, 20), elements=st.sampled_from([0, 0, 0, 1])) | st.none(),
    st.integers(0, 1000),
)
@example(None, 168)  # the larger of two objects has a hole
def test_nothing_is_made_that_could_be_found(mask, seed):
    if mask is None:  # blobs: where rings and pairs occur
        field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(20, 20)), 1.2)
        mask = (field > np.quantile(field, 0.7)).astype(int)
    found = chunks.find_chunks(mask.astype(float), mask, size=16)
    for name in ("empty", "one_pixel", "thin_line", "two_unequal", "ring"):
        if found[name].found:
            continue
        for row, column in np.ndindex(5, 5):
            crop = mask[row : row + 16, column : column + 16].astype(np.int64)
            candidate = edge_cases.Chunk(
                name, crop.astype(np.float32), crop, crop, 2, None, (row, column), True, "", ""
            )
            if name == "thin_line" and euler_number(crop > 0, connectivity=2) != 1:
                continue  # a closed line is not looked for
            assert not has_property(name, candidate), (name, row, column)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(16, 22), st.integers(16, 22))))
def test_euler_sums_equal_scikit_image(front):
    scene = edge_cases._Scene(front.astype(float), front, 16, None, None, 255, 0)
    sums = scene.euler()
    for row, column in np.ndindex(sums.shape):
        crop = front[row : row + 16, column : column + 16]
        assert sums[row, column] == euler_number(crop, connectivity=2)


def test_ignored_pixels_of_the_picture_are_used_and_avoided():
    sample = data.nuclei()
    mask = sample.mask.copy()
    mask[:, 100:112] = 255
    found = chunks.find_chunks(sample.image, mask, instances=sample.instances)
    strip = found.pop("ignored_strip")
    assert strip.found
    assert strip.ignore_index == 255
    assert (strip.target == 255).any()
    assert (strip.truth[strip.target == 255] == 0).all()
    for name, chunk in found.items():
        check_chunk(name, chunk)
        assert chunk.origin[1] + len(chunk.truth) <= 100 or chunk.origin[1] >= 112


def test_colour_images_and_other_ranges():
    sample = data.vessels()
    names = ["border"]
    plain = chunks.find_chunks(sample.image, sample.mask, names=names)["border"]
    colour = np.stack([sample.image] * 3, axis=-1)
    eight_bit = np.rint(sample.image * 255).astype(np.uint8)
    stretched = chunks.find_chunks(1000 * sample.image - 300, sample.mask, names=names)["border"]
    for other in (colour, eight_bit, torch.tensor(sample.image)):
        chunk = chunks.find_chunks(other, sample.mask, names=names)["border"]
        np.testing.assert_allclose(chunk.image, plain.image, atol=0.003)
    assert 0 <= stretched.image.min() < stretched.image.max() <= 1
    assert np.corrcoef(stretched.image.ravel(), plain.image.ravel())[0, 1] > 0.999


def test_chunks_are_shared_and_protected():
    chunk = chunks.chunks_of("nuclei")["border"]
    with pytest.raises(ValueError, match="read-only"):
        chunk.target[0, 0] = 1
    image, target = chunk.tensors()
    assert image.shape == (1, 1, 32, 32)
    assert target.shape == (1, 32, 32)
    target[:] = 0  # a copy: no warning, no change
    assert chunk.target.any()


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (TypeError, {"mask": np.zeros((20, 20))}, "dtype float64.*threshold"),
        (ValueError, {"mask": np.zeros((3, 20, 20), int)}, r"shape \(3, 20, 20\).*one slice"),
        (ValueError, {"mask": np.zeros((21, 20), int)}, r"image has shape \(20, 20\)"),
        (ValueError, {"image": np.full((20, 20), np.nan)}, "NaN"),
        (ValueError, {"mask": np.full((20, 20), 255)}, "divide a 0/255 mask by 255"),
        (ValueError, {"size": 32}, "size is 32, wanted a whole number from 16 to .* 20"),
        (ValueError, {"size": 8}, "size is 8"),
        (ValueError, {"num_classes": 2, "mask": np.full((20, 20), 2)}, "label 2.*from 0 to 1"),
        (ValueError, {"mask": np.full((20, 20), -1)}, "label -1"),
        (ValueError, {"ignore_index": 1}, "ignore_index is 1, which is one of the 2 classes"),
        (ValueError, {"instances": np.zeros((3, 3), int)}, r"instances has shape \(3, 3\)"),
        (ValueError, {"names": ["full", "ful"]}, "'ful', wanted names among empty, full"),
    ],
)
def test_bad_scenes(error, arguments, message):
    whole = {"image": np.zeros((20, 20)), "mask": np.zeros((20, 20), int), "size": 16} | arguments
    with pytest.raises(error, match=message):
        chunks.find_chunks(whole.pop("image"), whole.pop("mask"), **whole)


def test_volumes_are_refused():
    with pytest.raises(ValueError, match=r"2-D sample.*slice"):
        chunks.chunks_of("brain_volume")
    with pytest.raises(ValueError, match="2-D sample"):
        chunks.whole_versus_crops(dice_loss, "brain_volume")


# ------------------------------------------------------------------ predictions


def probabilities(logits):
    """Probability of the true classes, each pixel: (C, rows, columns)."""
    z = logits.double()[0]
    return torch.cat([1 - z.sigmoid(), z.sigmoid()]) if len(z) == 1 else z.softmax(0)


def predicted(prediction):
    return probabilities(prediction.logits).argmax(0).numpy()


def test_predictions_are_what_their_names_say(picture):
    _, found = picture
    for chunk in found.values():
        made = chunks.predictions(chunk, pixels=2)
        assert list(made) == list(chunks.PREDICTIONS)
        truth = chunk.truth
        front = truth > 0
        for name, prediction in made.items():
            if prediction.absent is None:
                channels = 1 if chunk.num_classes == 2 else chunk.num_classes
                assert prediction.logits.shape == (1, channels, *truth.shape)
                assert prediction.logits.isfinite().all()
                if name != "uniform":
                    np.testing.assert_array_equal(predicted(prediction), prediction.labels)
        assert (predicted(made["perfect"]) == truth).all()
        assert (predicted(made["inverted"]) != truth).all()
        assert (made["uniform"].logits == 0).all()
        if (labels := made["shifted"].labels) is not None:
            np.testing.assert_array_equal(labels[:, 2:], truth[:, :-2])
            assert not labels[:, :2].any()
        if (labels := made["dilated"].labels) is not None:
            assert (labels[front] == truth[front]).all()
            grown = ndimage.distance_transform_edt(~front) <= 2
            np.testing.assert_array_equal(labels > 0, grown)
        if (labels := made["eroded"].labels) is not None:
            np.testing.assert_array_equal(labels > 0, ndimage.distance_transform_edt(front) > 2)
        if (labels := made["missing_small"].labels) is not None:
            gone = front & (labels == 0)
            parts = components(front)
            assert len(np.unique(parts[gone])) == 1
            assert gone.sum() == areas(front)[0]
            assert (labels[~gone] == truth[~gone]).all()
        else:
            assert len(areas(front)) < 2
        if (labels := made["false_object"].labels) is not None:
            extra = (labels > 0) & ~front
            assert len(areas(labels > 0)) == len(areas(front)) + 1
            assert len(areas(extra)) == 1
            assert not rim(extra)
            assert (labels[~extra] == truth[~extra]).all()
        wrong = made["confident_wrong"]
        if wrong.absent is None:
            assert (predicted(wrong) != truth).all()
            assert wrong.logits.abs().max() == 5 * made["inverted"].logits.abs().max()
        for name, prediction in made.items():
            # absent, rather than another prediction under a false name
            if name != "perfect" and prediction.labels is not None:
                assert (prediction.labels != truth).any()


def test_absent_predictions_say_why():
    found = chunks.chunks_of("nuclei")
    reasons = {
        ("empty", "shifted"): "no object",
        ("empty", "missing_small"): "no object",
        ("full", "dilated"): "no outline",
        ("full", "false_object"): "no room",
        ("border", "missing_small"): "no two objects",
        ("saturated", "confident_wrong"): "as large as they get",
    }
    for (chunk, prediction), reason in reasons.items():
        made = chunks.predictions(found[chunk])[prediction]
        assert made.logits is None
        assert reason in made.absent
        with pytest.raises(ValueError, match=f"{prediction}.*{chunk}.*{reason}"):
            chunks.predict(found[chunk], prediction)


def test_confidence_sets_the_logits_and_the_channels_do_not_matter():
    chunk = chunks.chunks_of("nuclei")["border"]
    for confidence in (0.5, 4.0, 50.0):
        one = chunks.predict(chunk, "shifted", confidence=confidence)
        two = chunks.predict(chunk, "shifted", confidence=confidence, channels=2)
        assert one.abs().unique().tolist() == [confidence]
        assert two.unique().tolist() == [0, confidence]
        torch.testing.assert_close(probabilities(one), probabilities(two))
    saturated = chunks.chunks_of("nuclei")["saturated"]
    logits = chunks.predict(saturated, "shifted", confidence=2.0)
    assert logits.abs().unique().tolist() == [1e4]
    assert set(logits.sigmoid().unique().tolist()) == {0.0, 1.0}
    assert chunks.predict(chunk, "perfect", dtype=torch.float64).dtype == torch.float64


def test_more_pixels_are_more_wrong():
    chunk = chunks.chunks_of("nuclei")["two_unequal"]
    for name in ("shifted", "dilated", "eroded"):
        wrong = [
            (chunks.predictions(chunk, pixels=k)[name].labels != chunk.truth).sum()
            for k in (1, 2, 3)
        ]
        assert all(a < b for a, b in pairwise(wrong))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": 0}, "confidence is 0"),
        ({"confidence": 2e4}, "confidence is 20000.0.*10000"),
        ({"pixels": 0}, "pixels is 0"),
        ({"channels": 0}, "channels is 0, but the chunk has 2 classes"),
        ({"names": ["perfect", "sharp"]}, "'sharp', wanted names among perfect"),
    ],
)
def test_bad_predictions(arguments, message):
    with pytest.raises(ValueError, match=message):
        chunks.predictions(chunks.chunks_of("nuclei")["border"], **arguments)
    multiclass = chunks.chunks_of("brain")["border"]
    with pytest.raises(ValueError, match="channels is 3, but the chunk has 4 classes"):
        chunks.predictions(multiclass, channels=3)


# ------------------------------------------------------------------ tables and pictures


def test_table_holds_what_the_loss_says():
    found = chunks.chunks_of("nuclei")
    table = chunks.chunk_table(dice_loss, found, smooth=0.5)
    assert len(table) == 90
    assert table.all_finite
    for row in table.present:
        chunk = found[row.chunk]
        logits = chunks.predict(chunk, row.prediction).requires_grad_()
        value = dice_loss(logits, chunk.tensors()[1], smooth=0.5, ignore_index=chunk.ignore_index)
        (gradient,) = torch.autograd.grad(value, logits)
        assert row.value == table.value(row.chunk, row.prediction) == value.item()
        assert row.largest_gradient == gradient.abs().max().item()
        assert row.gradient_is_zero == (not gradient.any())
    # Dice is blind where the sigmoid has saturated.
    assert table.row("saturated", "shifted").gradient_is_zero
    assert not table.row("two_unequal", "shifted").gradient_is_zero


def test_modules_and_multiclass_losses():
    as_module = chunks.on_chunks(BinaryCrossEntropy()).table
    as_function = chunks.on_chunks(binary_cross_entropy).table
    assert as_module.loss == "BinaryCrossEntropy"
    assert as_module.rows == as_function.rows
    assert chunks.on_chunks(cross_entropy, "brain").table.all_finite
    two = chunks.on_chunks(cross_entropy, "nuclei", channels=2).table
    for row in as_function.present:
        assert two.value(row.chunk, row.prediction) == pytest.approx(row.value, rel=1e-5)


def test_table_catches_what_is_not_finite():
    def broken(logits, target, ignore_index=None):
        # log(0) where the sigmoid has saturated: an infinite value and a NaN gradient
        p = logits.sigmoid()[:, 0]
        return -torch.where(target == 1, p.log(), (1 - p).log()).mean()

    table = chunks.on_chunks(broken).table
    assert not table.all_finite
    assert not table.row("saturated", "inverted").finite
    assert table.row("border", "inverted").finite
    assert "inf" in str(table)
    assert "white on red" in table._repr_html_()
    assert "background:#9C2F00" in table._repr_html_()
    assert "background:#9C2F00" not in chunks.on_chunks(dice_loss).table._repr_html_()

    def half_broken(logits, target, ignore_index=None):
        return (logits * 0).sqrt().sum()  # value 0, gradient 0 · ∞

    table = chunks.chunk_table(half_broken, chunks.chunks_of("nuclei"))
    assert all(row.value == 0 and not row.finite for row in table.present)


def test_loss_without_ignore_index_and_constant_loss():
    def plain(logits, target):
        return logits.detach().mean()

    table = chunks.on_chunks(plain).table
    assert "takes no ignore_index" in table.row("ignored_strip", "perfect").absent
    assert all(row.gradient_is_zero for row in table.present)
    assert "ignore_index" in table._repr_markdown_()
    figure = chunks.on_chunks(plain).grid("perfect")
    plots.plt.close(figure)


def test_table_errors():
    table = chunks.on_chunks(dice_loss, names=["perfect", "dilated"]).table
    with pytest.raises(KeyError, match="no chunk 'border' with a prediction 'shifted'"):
        table.row("border", "shifted")
    with pytest.raises(ValueError, match="'dilated' on 'empty' has no value: there is no object"):
        table.value("empty", "dilated")
    with pytest.raises(TypeError, match=r"shape \(1, 32, 32\).*reduction"):
        chunks.on_chunks(binary_cross_entropy, reduction="none")
    with pytest.raises(TypeError, match="at least one Chunk"):
        chunks.chunk_table(dice_loss, [])
    with pytest.raises(ValueError, match="'sharp'"):
        chunks.chunk_grid(dice_loss, chunks.chunks_of("nuclei"), "sharp")


def test_table_renders_every_number_in_every_form():
    table = chunks.on_chunks(dice_loss).table
    page, text, markdown = table._repr_html_(), str(table), table._repr_markdown_()
    for row in table.present:
        for form in (page, text, markdown):
            assert chunks._number(row.value) in form
    for name in chunks.CHUNKS:
        assert name.replace("_", " ") in page
    assert 'class="dataframe' in page, "what Jupyter and the theme style, light and dark"
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 12
    assert {line.count("|") for line in lines} == {11}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.4, "0.400"),
        (0.95, "0.950"),
        (12.345, "12.3"),
        (645.2, "645"),
        (999.7, "1000"),
        (12345.6, "12346"),
        (4.7e-5, "4.7e−5"),
        (-0.25, "-0.250"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (None, "–"),
    ],
)
def test_numbers_are_short(value, text):
    assert chunks._number(value) == text


@pytest.mark.parametrize(("loss", "source"), [(dice_loss, "nuclei"), (cross_entropy, "brain")])
def test_grid_shows_the_gradient_around_zero(loss, source):
    report = chunks.on_chunks(loss, source)
    figure = report.grid("shifted")
    maps = [
        image
        for ax in figure.axes
        for image in ax.images
        if image.get_cmap().name == plots.GRADIENT_MAP.name
    ]
    assert len(maps) == sum(r.absent is None for r in report.table if r.prediction == "shifted")
    for image in maps:
        low, high = image.get_clim()
        assert low == -high < 0
    titles = " ".join(ax.get_title() for ax in figure.axes)
    for row in report.table:
        assert row.chunk.replace("_", " ") in titles
        if row.prediction == "shifted" and row.absent is None:
            assert f"L = {chunks._number(row.value)}" in titles
    plots.plt.close(figure)
    shared = report.grid("shifted", shared_scale=True)
    clims = {
        image.get_clim()
        for ax in shared.axes
        for image in ax.images
        if image.get_cmap().name == plots.GRADIENT_MAP.name
    }
    assert len(clims) == 1
    plots.plt.close(shared)


def test_galleries_show_every_chunk_and_every_prediction():
    found = chunks.chunks_of("brain")
    figure = chunks.show_chunks(found)
    assert [ax.get_title() for ax in figure.axes] == [
        f"{name.replace('_', ' ')}\n{'found' if chunk.found else 'made'}"
        for name, chunk in found.items()
    ]
    plots.plt.close(figure)
    figure = chunks.show_predictions(found["two_unequal"])
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["label", *(name.replace("_", " ") for name in chunks.PREDICTIONS)]
    plots.plt.close(figure)


def test_report_shows_table_and_grid_in_a_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    report = chunks.on_chunks(dice_loss)
    report._ipython_display_()
    table, figure = shown
    assert table is report.table
    assert len(figure.axes) == 31
    assert not plots.plt.get_fignums(), "a closed figure is not shown twice"


def test_no_network_in_a_fresh_process():
    code = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked for")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import matplotlib
matplotlib.use("agg")
from seglosses_nb import dice_loss
from seglosses_nb.lab import chunks, plots
plots.use_style()
chunks.on_chunks(dice_loss).grid().canvas.draw()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a chapter's build refuses anything on stderr"


# ------------------------------------------------------------------ the whole and its parts


def test_pixel_losses_add_up_and_region_losses_do_not():
    bce = chunks.whole_versus_crops(binary_cross_entropy)
    assert bce.crops.shape == (8, 8)
    assert bce.difference == pytest.approx(0, abs=1e-7)
    dice = chunks.whole_versus_crops(dice_loss)
    assert dice.difference > 0.01
    assert dice.whole == pytest.approx(0.166, abs=0.001)
    assert f"{dice.whole:.6f}" in dice._repr_markdown_()
    ce = chunks.whole_versus_crops(cross_entropy, "brain", 48, prediction="shifted")
    assert ce.crops.shape == (4, 4)
    assert ce.difference == pytest.approx(0, abs=1e-6)


def test_whole_versus_crops_against_a_loop():
    sample = data.vessels()
    result = chunks.whole_versus_crops(
        dice_loss, sample, 100, prediction="eroded", pixels=1, smooth=2.0
    )
    truth = torch.tensor(sample.mask[:200, :200])
    labels = torch.tensor(data.erode(sample.mask[:200, :200], 1))
    logits = (8.0 * labels - 4)[None, None].float()
    assert result.whole == pytest.approx(dice_loss(logits, truth[None], smooth=2.0).item())
    for row in (0, 1):
        for column in (0, 1):
            part = (slice(100 * row, 100 * row + 100), slice(100 * column, 100 * column + 100))
            value = dice_loss(logits[..., *part], truth[part][None], smooth=2.0)
            assert result.crops[row, column] == pytest.approx(value.item())


def test_whole_versus_crops_errors():
    with pytest.raises(ValueError, match=r"size is 600.*512"):
        chunks.whole_versus_crops(dice_loss, size=600)
    with pytest.raises(ValueError, match="size is 0"):
        chunks.whole_versus_crops(dice_loss, size=0)
