"""The lab's images: shape, range, provenance, determinism; and the noise on masks."""

import hashlib
import re
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from seglosses_nb.lab import data

FACTS = {
    # shape, labels that occur, smallest and largest share of foreground
    "brain": ((233, 197), 4, 0.40, 0.46),
    "brain_volume": ((48, 64, 64), 4, 0.505, 0.515),
    "lesions": ((192, 160), 2, 0.002, 0.005),
    "nuclei": ((512, 512), 2, 0.199, 0.200),
    "vessels": ((256, 256), 2, 0.03, 0.09),
    "retina": ((470, 470), 2, 0.075, 0.085),
}


def test_every_source_has_facts():
    assert set(FACTS) == set(data.SOURCES)


@pytest.mark.parametrize("name", FACTS)
def test_source(name):
    sample = data.load(name)
    shape, classes, low, high = FACTS[name]
    assert sample.name == name
    assert sample.image.shape == sample.mask.shape == shape
    assert sample.image.dtype == np.float32
    assert sample.mask.dtype == np.int64
    assert 0 <= sample.image.min() < 0.2
    assert 0.8 < sample.image.max() <= 1
    assert np.unique(sample.mask).tolist() == list(range(classes))
    assert sample.num_classes == classes == len(sample.class_names)
    assert low <= sample.foreground <= high
    assert sample.source.endswith(".")
    image, target = sample.tensors()
    assert image.shape == (1, 1, *shape)
    assert target.shape == (1, *shape)


@pytest.mark.parametrize("name", FACTS)
def test_source_is_the_same_every_time_and_belongs_to_the_caller(name):
    first = data.load(name)
    fields = ("image", "mask", "instances", "soft")
    before = {f: None if (a := getattr(first, f)) is None else a.copy() for f in fields}
    for field in fields:
        if before[field] is not None:
            getattr(first, field)[:] = 0
    second = data.load(name)
    for field in fields:
        np.testing.assert_array_equal(before[field], getattr(second, field))


def test_no_network_and_no_plotting_in_a_fresh_process():
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("a source asked for the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from seglosses_nb.lab import data
assert not {"matplotlib", "nilearn", "skimage"} & set(sys.modules), "imports only where needed"
for name in data.SOURCES:
    data.load(name)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# ------------------------------------------------------------------ brain


def test_brain_labels_are_the_largest_probability():
    sample = data.brain_slice()
    assert sample.soft.shape == (4, 233, 197)
    assert sample.soft.dtype == np.float32
    assert sample.soft.min() >= 0
    np.testing.assert_allclose(sample.soft.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(sample.soft.argmax(axis=0), sample.mask)


def test_brain_tissues_are_as_bright_as_they_should_be():
    sample = data.brain_slice()
    means = [sample.image[sample.mask == label].mean() for label in range(4)]
    assert means == sorted(means), "on T1, background < fluid < grey < white"


def test_brain_planes_show_the_same_voxels():
    z, y, x = 75, 100, 60
    axial = data.brain_slice(z)
    coronal = data.brain_slice(y, "coronal")
    sagittal = data.brain_slice(x, "sagittal")
    assert coronal.mask.shape == (189, 197)
    assert sagittal.mask.shape == (189, 233)
    for field in ("image", "mask", "soft"):
        a, c, s = (getattr(sample, field) for sample in (axial, coronal, sagittal))
        np.testing.assert_array_equal(a[..., 232 - y, :], c[..., 188 - z, :])
        np.testing.assert_array_equal(a[..., :, x], s[..., 188 - z, :])
        np.testing.assert_array_equal(c[..., :, x], s[..., :, 232 - y])


def test_brain_volume_is_made_of_slices():
    volume = data.brain_volume((70, 40, 30), (3, 50, 60))
    for k in range(3):
        part = data.brain_slice(70 + k).crop(slice(40, 90), slice(30, 90))
        np.testing.assert_array_equal(volume.image[k], part.image)
        np.testing.assert_array_equal(volume.mask[k], part.mask)
        np.testing.assert_array_equal(volume.soft[:, k], part.soft)


def test_whole_brain_has_the_documented_shares():
    mask = data.brain_volume((0, 0, 0), (189, 233, 197)).mask
    shares = np.bincount(mask.ravel()) / mask.size
    np.testing.assert_allclose(shares, [0.783, 0.018, 0.126, 0.073], atol=0.001)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.brain_slice(75, "oblique"), "plane is 'oblique'.*axial"),
        (lambda: data.brain_slice(189), "index is 189.*0 to 188"),
        (lambda: data.brain_slice(-1), "index is -1"),
        (lambda: data.brain_volume((0, 0, 180), (10, 10, 60)), "does not fit.*189, 233, 197"),
        (lambda: data.brain_volume((0, 0), (10, 10)), "three numbers"),
        (lambda: data.lesions(contrast=0), "contrast is 0"),
        (lambda: data.lesions(noise=-1), "noise is -1"),
        (lambda: data.vessels(shape=(32, 256)), r"shape is \(32, 256\).*at least 64"),
        (lambda: data.vessels(noise=-1), "noise is -1"),
        (lambda: data.load("heart"), "name is 'heart'.*'nuclei'"),
        (lambda: data.nuclei().crop(slice(0, 5)), "got 1 slices.*2 space axes"),
        (lambda: data.nuclei().crop(slice(600, 700), slice(0, 5)), "leaves nothing"),
        (lambda: data.nuclei().binary(2), "label 2 is not in nuclei"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------ lesions, nuclei, vessels


@pytest.mark.parametrize("seed", range(24))
def test_lesions(seed):
    sample = data.lesions(seed)
    labels, count = ndimage.label(sample.mask, np.ones((3, 3)))
    assert 1 <= count <= 3
    assert 0.002 <= sample.foreground <= 0.005
    radii = np.sqrt(np.bincount(labels.ravel())[1:] / np.pi)
    assert np.all((radii >= 2) & (radii <= 5))
    # one instance, one component
    assert len(set(zip(labels[labels > 0], sample.instances[labels > 0], strict=True))) == count
    np.testing.assert_array_equal(sample.instances > 0, sample.mask > 0)
    # darker than the rim of tissue around it
    around = ndimage.binary_dilation(sample.mask > 0, iterations=2) & (sample.mask == 0)
    assert sample.image[sample.mask > 0].mean() < sample.image[around].mean() - 0.1


def test_lesions_differ_by_seed_and_vary_in_number():
    samples = [data.lesions(seed) for seed in range(24)]
    assert {int(sample.instances.max()) for sample in samples} == {1, 2, 3}
    assert len({sample.mask.tobytes() for sample in samples}) == 24


def test_nuclei():
    sample = data.nuclei()
    areas = np.bincount(sample.instances.ravel())[1:]
    assert areas.size == 125
    assert (areas.min(), areas.max()) == (25, 751)
    np.testing.assert_array_equal(sample.instances > 0, sample.mask > 0)
    for label in range(1, 126):
        assert ndimage.label(sample.instances == label, np.ones((3, 3)))[1] == 1
    assert "CC0" in sample.source
    assert sample.image[sample.mask > 0].mean() > 2 * sample.image[sample.mask == 0].mean()


def test_nuclei_are_those_of_their_readme():
    folder = files("seglosses_nb") / "lab" / "data"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    content = (folder / "nuclei.npz").read_bytes()
    assert len(content) < 250_000
    named = dict(re.findall(r"^\| (`\w+.*?) \| `([0-9a-f]{64})` \|$", readme, flags=re.M))
    assert named["`nuclei.npz`"] == hashlib.sha256(content).hexdigest()
    with np.load(folder / "nuclei.npz") as archive:
        for array in ("image", "instances"):
            found = hashlib.sha256(archive[array].tobytes()).hexdigest()
            assert named[f"`{array}`, its bytes in C order"] == found


@pytest.mark.parametrize("seed", range(12))
def test_vessels(seed):
    sample = data.vessels(seed)
    front = sample.mask > 0
    assert ndimage.label(front, np.ones((3, 3)))[1] == 1
    assert 0.03 <= sample.foreground <= 0.09
    # The root is 3 px wide: one of the runs that the tree leaves in the left border.
    runs = ndimage.label(front[:, 0])[0]
    assert np.isin(np.bincount(runs)[1:], (3, 4)).any()
    # Somewhere it is 1 px wide: pixels whose whole 3 × 3 surroundings hold a line only.
    thick = ndimage.binary_dilation(
        ndimage.binary_erosion(front, np.ones((2, 2))), np.ones((2, 2)), origin=-1
    )
    assert 0.15 < (front & ~thick).sum() / front.sum() < 0.8
    # Nowhere is a branch wider than 3 px, but where branches meet.
    assert (ndimage.distance_transform_cdt(front) > 2).sum() < 0.03 * front.sum()


def test_vessels_in_another_shape_and_with_another_seed():
    assert data.vessels(shape=(96, 160)).mask.shape == (96, 160)
    assert not np.array_equal(data.vessels(1).mask, data.vessels(2).mask)
    assert data.vessels(noise=0).image.std() < data.vessels(noise=0.2).image.std()


def test_retina_is_called_silver_and_lies_on_dark_lines():
    sample = data.retina()
    assert "silver" in sample.source
    assert "silver" in sample.class_names[1]
    around = ndimage.binary_dilation(sample.mask > 0, iterations=4) & (sample.mask == 0)
    assert sample.image[sample.mask > 0].mean() < sample.image[around].mean()
    areas = np.bincount(ndimage.label(sample.mask, np.ones((3, 3)))[0].ravel())[1:]
    assert areas.min() > 20


# ------------------------------------------------------------------ samples


def test_crop_cuts_everything_alike():
    sample = data.brain_slice()
    part = sample.crop(slice(100, 120), slice(90, 100))
    np.testing.assert_array_equal(part.image, sample.image[100:120, 90:100])
    np.testing.assert_array_equal(part.mask, sample.mask[100:120, 90:100])
    np.testing.assert_array_equal(part.soft, sample.soft[:, 100:120, 90:100])
    assert part.instances is None


def test_binary_merges_the_chosen_labels():
    sample = data.brain_slice()
    matter = sample.binary(2, 3)
    np.testing.assert_array_equal(matter.mask, np.isin(sample.mask, (2, 3)))
    assert matter.num_classes == 2
    assert matter.class_names == ("background", "grey matter + white matter")
    np.testing.assert_array_equal(sample.binary().mask, sample.mask > 0)
    assert data.nuclei().binary().instances.max() == 125


# ------------------------------------------------------------------ noise

masks = arrays(
    np.int64, st.tuples(st.integers(3, 12), st.integers(3, 12)), elements=st.integers(0, 2)
)


def naive_distance(mask, value):
    """Distance of every pixel to the nearest pixel that is background (value 0) or not (1)."""
    points = np.argwhere((mask > 0) == value)
    where = np.indices(mask.shape).reshape(mask.ndim, -1).T
    if not len(points):
        return np.full(mask.shape, np.inf)
    return np.sqrt(((where[:, None] - points[None]) ** 2).sum(-1)).min(axis=1).reshape(mask.shape)


@settings(max_examples=40, deadline=None)
@given(masks, st.integers(1, 3))
def test_dilate_and_erode_against_the_definition(mask, pixels):
    grown = data.noisy(mask, "dilate", pixels=pixels)
    np.testing.assert_array_equal(grown > 0, naive_distance(mask, 1) <= pixels)
    np.testing.assert_array_equal(grown[mask > 0], mask[mask > 0])
    shrunk = data.noisy(mask, "erode", pixels=pixels)
    np.testing.assert_array_equal(shrunk > 0, naive_distance(mask, 0) > pixels)
    np.testing.assert_array_equal(shrunk[shrunk > 0], mask[shrunk > 0])


@settings(max_examples=40, deadline=None)
@given(masks, st.integers(-4, 4), st.integers(-4, 4))
def test_shift_against_the_definition(mask, rows, columns):
    moved = data.shift(mask, (rows, columns))
    for row, column in np.ndindex(mask.shape):
        r, c = row - rows, column - columns
        inside = 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1]
        assert moved[row, column] == (mask[r, c] if inside else 0)


@settings(max_examples=40, deadline=None)
@given(masks, st.integers(0, 5))
def test_flip_boundary_touches_boundaries_only(mask, seed):
    noisy = data.noisy(mask, "flip_boundary", seed=seed, fraction=1)
    for row, column in np.ndindex(mask.shape):
        neighbours = {
            int(mask[r, c])
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
            if 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1]
        }
        others = neighbours - {int(mask[row, column])}
        # fraction 1: every pixel that can change does, to a neighbour's label
        assert noisy[row, column] in others if others else noisy[row, column] == mask[row, column]


def test_flip_boundary_flips_the_asked_fraction():
    sample = data.nuclei()
    ever = data.noisy(sample.mask, "flip_boundary", fraction=1) != sample.mask
    some = data.noisy(sample.mask, "flip_boundary", fraction=0.3, seed=5) != sample.mask
    assert not (some & ~ever).any()
    assert some.sum() / ever.sum() == pytest.approx(0.3, abs=0.02)


def test_drop_removes_whole_objects():
    sample = data.nuclei()
    kept = data.noisy(sample.mask, "drop", fraction=0.2, instances=sample.instances)
    gone = set(sample.instances[(sample.mask > 0) & (kept == 0)])
    assert len(gone) == 25
    assert not kept[np.isin(sample.instances, list(gone))].any()
    # without instances an object is a connected component
    components, count = data.objects(sample.mask)
    kept = data.noisy(sample.mask, "drop", fraction=0.2)
    assert count - data.objects(kept)[1] == round(0.2 * count)
    assert len(np.unique(components[(sample.mask > 0) & (kept == 0)])) == round(0.2 * count)


def test_drop_always_drops_something_and_nothing_from_nothing():
    mask = np.zeros((8, 8), int)
    mask[1:3, 1:3] = 1
    assert not data.noisy(mask, "drop", fraction=0.01).any()
    empty = np.zeros((8, 8), int)
    for kind in data.NOISE_KINDS:
        np.testing.assert_array_equal(data.noisy(empty, kind), empty)


def test_shift_goes_in_every_direction():
    mask = np.zeros((9, 9), int)
    mask[4, 4] = 1
    places = {
        tuple(np.argwhere(data.noisy(mask, "shift", seed=seed, pixels=3))[0]) for seed in range(80)
    }
    assert places == {(r, c) for r in (1, 4, 7) for c in (1, 4, 7)} - {(4, 4)}


@pytest.mark.parametrize("kind", data.NOISE_KINDS)
def test_noise_is_seeded_and_leaves_its_input_alone(kind):
    mask = data.vessels().mask
    before = mask.copy()
    first = data.noisy(mask, kind, seed=3)
    np.testing.assert_array_equal(first, data.noisy(mask, kind, seed=3))
    np.testing.assert_array_equal(mask, before)
    assert first.dtype == np.int64
    if kind != "drop":  # the tree is one object: it is dropped whatever the seed
        assert (first != mask).any()
        same = np.array_equal(first, data.noisy(mask, kind, seed=4))
        assert same == (kind in ("dilate", "erode"))


@pytest.mark.parametrize("kind", data.NOISE_KINDS)
def test_noise_in_three_dimensions(kind):
    mask = data.brain_volume().mask
    noisy = data.noisy(mask, kind, fraction=0.5)
    assert noisy.shape == mask.shape
    assert (noisy != mask).any()
    assert set(np.unique(noisy)) <= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [
        (ValueError, lambda m: data.noisy(m, "blur"), "kind is 'blur'.*'flip_boundary'"),
        (ValueError, lambda m: data.noisy(m, "shift", pixels=0), "pixels is 0"),
        (ValueError, lambda m: data.noisy(m, "shift", pixels=1.5), "pixels is 1.5"),
        (ValueError, lambda m: data.noisy(m, "drop", fraction=0), "fraction is 0"),
        (ValueError, lambda m: data.noisy(m, "drop", fraction=1.1), "fraction is 1.1"),
        (ValueError, lambda m: data.noisy(m, "drop", instances=m[1:]), r"shape \(7, 8\).*\(8, 8\)"),
        (ValueError, lambda m: data.shift(m, (1,)), "1 numbers.*2 axes"),
        (TypeError, lambda m: data.noisy(m * 0.5, "drop"), "dtype float64.*threshold"),
        (ValueError, lambda m: data.objects(m[:0]), "at least one pixel"),
    ],
)
def test_bad_masks(error, call, message):
    with pytest.raises(error, match=message):
        call(np.ones((8, 8), int))
