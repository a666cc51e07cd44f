"""One warp and one table: exact where they can be, keyed by nothing but seed, epoch and sample."""

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.config import Augmentation
from common.data.augment import (
    NUMBERS,
    affine_matrix,
    augment_image,
    augment_mask,
    draw_batch,
    draw_numbers,
    intensity_table,
)
from common.random_numbers import generator, uniform

NOTHING = Augmentation(
    flip_probability=0, rotation_degrees=0, shift_fraction=0, scale_fraction=0, brightness=0, contrast=0
)
MIDDLE = np.full(NUMBERS, 0.5)  # no rotation, shift, zoom, brightness or contrast, whatever the ranges
FLIP, ROTATION, SHIFT_X, SHIFT_Y, SCALE, BRIGHTNESS, CONTRAST = range(NUMBERS)

sizes = st.integers(2, 40)
numbers = st.lists(st.floats(0, 1, exclude_max=True), min_size=NUMBERS, max_size=NUMBERS).map(np.array)
ranges = st.builds(
    Augmentation,
    flip_probability=st.floats(0, 1),
    rotation_degrees=st.floats(0, 45),
    shift_fraction=st.floats(0, 0.3),
    scale_fraction=st.floats(0, 0.5),
    brightness=st.floats(0, 0.5),
    contrast=st.floats(0, 0.9),
)


def picture(size: int) -> NDArray[np.uint8]:
    return generator("picture", size).integers(0, 256, (size, size)).astype(np.uint8)


def drawn(**changes: float) -> NDArray[np.float64]:
    """Numbers in the middle of their ranges, but for those given by place, e.g. `at0=0.25`."""
    values = MIDDLE.copy()
    for name, value in changes.items():
        values[int(name.removeprefix("at"))] = value
    return values


def dot(size: int, row: int, column: int) -> NDArray[np.uint8]:
    image = np.zeros((size, size), dtype=np.uint8)
    image[row, column] = 255
    return image


# --- the warp -----------------------------------------------------------------------------------------------------


@given(size=sizes, numbers=numbers)
def test_ranges_of_zero_change_nothing(size: int, numbers: NDArray[np.float64]) -> None:
    image = picture(size)
    np.testing.assert_array_equal(augment_image(image, numbers, NOTHING), image)


@given(size=sizes)
def test_a_flip_is_the_exact_mirror(size: int) -> None:
    image = picture(size)
    always = dataclasses.replace(NOTHING, flip_probability=1)
    np.testing.assert_array_equal(augment_image(image, MIDDLE, always), image[:, ::-1])


def test_flip_probability_is_the_share_below_it() -> None:
    image, ranges = picture(8), dataclasses.replace(NOTHING, flip_probability=0.25)
    below = augment_image(image, drawn(at0=0.2499), ranges)
    at = augment_image(image, drawn(at0=0.25), ranges)
    np.testing.assert_array_equal(below, image[:, ::-1])
    np.testing.assert_array_equal(at, image)


@pytest.mark.parametrize("size", [9, 10])
def test_a_quarter_turn_is_clockwise_about_the_centre(size: int) -> None:
    """+90 degrees, y down: what is right of the centre comes below it. Even sizes turn about a pixel corner."""
    quarter = dataclasses.replace(NOTHING, rotation_degrees=180)
    image = picture(size)
    turned = augment_image(image, drawn(at1=0.75), quarter)  # 180 * (2 * 0.75 - 1) = 90
    np.testing.assert_array_equal(turned, np.rot90(image, k=-1))
    np.testing.assert_array_equal(augment_image(image, drawn(at1=0.25), quarter), np.rot90(image, k=1))


def test_rotation_matrix_of_30_degrees() -> None:
    """(x, y) -> (cos x - sin y, sin x + cos y) about (2, 2) for S = 5."""
    matrix = affine_matrix(5, drawn(at0=1.0, at1=1.0), dataclasses.replace(NOTHING, rotation_degrees=30))
    half, root = 0.5, np.sqrt(3) / 2
    expected = [[root, -half, 2 - 2 * root + 2 * half], [half, root, 2 - 2 * half - 2 * root]]
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-12)


def test_flip_comes_before_rotation() -> None:
    """Mirror, then turn by +90: the two orders differ by half a turn."""
    ranges = dataclasses.replace(NOTHING, flip_probability=1, rotation_degrees=180)
    image = picture(8)
    changed = augment_image(image, drawn(at1=0.75), ranges)
    np.testing.assert_array_equal(changed, np.rot90(image[:, ::-1], k=-1))


def test_shift_is_a_fraction_of_the_size_right_and_down() -> None:
    ranges = dataclasses.replace(NOTHING, shift_fraction=0.2)  # 10 px: +-2
    moved = augment_image(dot(10, 4, 4), drawn(at2=1.0, at3=0.0), ranges)
    np.testing.assert_array_equal(moved, dot(10, 2, 6))


def test_what_comes_in_from_outside_is_black() -> None:
    ranges = dataclasses.replace(NOTHING, shift_fraction=0.5)
    moved = augment_image(np.full((8, 8), 200, dtype=np.uint8), drawn(at2=1.0), ranges)
    assert (moved[:, :4] == 0).all()
    assert (moved[:, 4:] == 200).all()


def test_scale_zooms_about_the_centre() -> None:
    """A zoom of 2 about (4, 4) takes a point at (5, 4) to (6, 4)."""
    ranges = dataclasses.replace(NOTHING, scale_fraction=1)
    matrix = affine_matrix(9, drawn(at0=1.0, at4=1.0), ranges)
    np.testing.assert_allclose(matrix @ [5, 4, 1], [6, 4])
    np.testing.assert_allclose(matrix @ [4, 4, 1], [4, 4])


@given(size=sizes, numbers=numbers, ranges=ranges)
def test_the_warp_is_a_similarity_within_its_ranges(
    size: int, numbers: NDArray[np.float64], ranges: Augmentation
) -> None:
    matrix = affine_matrix(size, numbers, ranges)
    linear = matrix[:, :2]
    scale = np.sqrt(abs(np.linalg.det(linear)))
    np.testing.assert_allclose(linear @ linear.T, scale**2 * np.eye(2), atol=1e-9)
    assert abs(scale - 1) <= ranges.scale_fraction + 1e-9
    assert (np.linalg.det(linear) < 0) == (numbers[FLIP] < ranges.flip_probability)
    centre = np.full(2, (size - 1) / 2)
    moved = matrix @ [*centre, 1] - centre
    assert (np.abs(moved) <= ranges.shift_fraction * size + 1e-9).all()
    angle = np.degrees(np.arctan2(-linear[0, 1], linear[1, 1]))
    assert abs(angle) <= ranges.rotation_degrees + 1e-6


# --- masks --------------------------------------------------------------------------------------------------------


def blob(size: int, row: float, column: float, radius: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def centroid(weights: NDArray) -> NDArray[np.float64]:
    """(row, column) of the centre of mass."""
    places = np.argwhere(weights)
    return np.average(places, axis=0, weights=weights[tuple(places.T)])


@given(size=sizes, numbers=numbers)
def test_ranges_of_zero_leave_a_mask_alone(size: int, numbers: NDArray[np.float64]) -> None:
    mask = picture(size) > 127
    changed = augment_mask(mask, numbers, NOTHING)
    assert changed.dtype == np.bool_
    np.testing.assert_array_equal(changed, mask)


@given(size=sizes)
def test_a_mask_is_flipped_exactly(size: int) -> None:
    mask = picture(size) > 127
    always = dataclasses.replace(NOTHING, flip_probability=1)
    np.testing.assert_array_equal(augment_mask(mask, MIDDLE, always), mask[:, ::-1])


@given(numbers=numbers, row=st.floats(22, 42), column=st.floats(22, 42))
def test_a_mask_follows_its_image(numbers: NDArray[np.float64], row: float, column: float) -> None:
    """The lesion stays where the image shows it, whatever the warp; brightness and contrast change no mask."""
    mask = blob(64, row, column, 7)
    image = np.where(mask, 240, 0).astype(np.uint8)
    ranges = Augmentation(0.5, 45, 0.1, 0.3, brightness=0.3, contrast=0.5)
    changed = augment_mask(mask, numbers, ranges)
    warped = augment_image(image, numbers, dataclasses.replace(ranges, brightness=0, contrast=0))
    np.testing.assert_allclose(
        centroid(changed), centroid(warped), atol=0.4
    )  # of whole pixels, some 75 or more
    assert np.count_nonzero(changed != (warped >= 120)) <= 3  # the image is rounded to whole grey values
    x, y = affine_matrix(64, numbers, ranges) @ [column, row, 1]
    np.testing.assert_allclose(centroid(changed), [y, x], atol=0.5)


@given(numbers=numbers, ranges=ranges)
def test_a_mask_is_lesion_from_half_of_a_pixel_on(numbers: NDArray[np.float64], ranges: Augmentation) -> None:
    mask = picture(24) > 200
    matrix = affine_matrix(24, numbers, ranges)
    coverage = cv2.warpAffine(mask.astype(np.float32), matrix, (24, 24), flags=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(augment_mask(mask, numbers, ranges), coverage >= 0.5)


def test_a_mask_brings_nothing_in_from_outside() -> None:
    ranges = dataclasses.replace(NOTHING, shift_fraction=0.5)
    moved = augment_mask(np.ones((8, 8), dtype=bool), drawn(at2=1.0), ranges)
    assert not moved[:, :4].any()
    assert moved[:, 4:].all()


# --- the intensities ----------------------------------------------------------------------------------------------


@given(numbers=numbers, ranges=ranges)
def test_the_table_never_falls(numbers: NDArray[np.float64], ranges: Augmentation) -> None:
    table = intensity_table(numbers, ranges)
    assert table.dtype == np.uint8
    assert table.shape == (256,)
    assert (np.diff(table.astype(int)) >= 0).all()  # a wrap-around past 0 or 255 would fall


def test_the_table_by_hand() -> None:
    ranges = dataclasses.replace(NOTHING, brightness=0.2, contrast=0.5)
    brighter = intensity_table(drawn(at5=1.0), ranges)  # + 51
    assert [brighter[value] for value in (0, 100, 204, 205, 255)] == [51, 151, 255, 255, 255]
    darker = intensity_table(drawn(at5=0.0), ranges)  # - 51
    assert [darker[value] for value in (0, 51, 52, 255)] == [0, 0, 1, 204]
    steeper = intensity_table(drawn(at6=1.0), ranges)  # (v - 127.5) * 1.5 + 127.5
    assert [steeper[value] for value in (0, 42, 43, 127, 129, 213)] == [0, 0, 1, 127, 130, 255]


# --- the numbers --------------------------------------------------------------------------------------------------


def test_same_key_same_numbers_other_key_other_numbers() -> None:
    numbers = draw_numbers(3, 5, "Stroke/58 (1)")
    np.testing.assert_array_equal(numbers, draw_numbers(3, 5, "Stroke/58 (1)"))
    others = [
        draw_numbers(4, 5, "Stroke/58 (1)"),
        draw_numbers(3, 6, "Stroke/58 (1)"),
        draw_numbers(5, 3, "Stroke/58 (1)"),
        draw_numbers(3, 5, "Stroke/58 (2)"),
        draw_numbers(3, 5, "Stroke/58 (1)", repeat=1),
        draw_numbers(3, 5, "Stroke/58 (1)", repeat=2),
    ]
    for other in others:
        assert not np.isin(other, numbers).any()
    image = picture(16)
    changed = [augment_image(image, drawn, Augmentation()) for drawn in (numbers, *others)]
    assert len({pixels.tobytes() for pixels in changed}) == len(changed)


def test_a_batch_draws_what_each_image_would_alone() -> None:
    names, repeats = ["a", "Stroke/58 (1)", "a"], [0, 0, 2]
    alone = [("augment", 3, 5, "a"), ("augment", 3, 5, "Stroke/58 (1)"), ("augment", 3, 5, "a", 2)]
    drawn = draw_batch(3, 5, names, repeats)
    np.testing.assert_array_equal(drawn, [uniform(NUMBERS, *key) for key in alone])
    assert draw_batch(3, 5, [], []).shape == (0, NUMBERS)
    tables = [intensity_table(row, Augmentation()) for row in drawn]
    np.testing.assert_array_equal(intensity_table(drawn, Augmentation()), tables)


def test_numbers_are_uniform() -> None:
    """Mean and variance of 7 x 2000 draws within 5 standard errors, each place of its own."""
    drawn = np.array([draw_numbers(0, 1, str(sample)) for sample in range(2000)])
    assert drawn.shape == (2000, NUMBERS)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=5 * np.sqrt(1 / 12 / 2000))
    correlation = np.corrcoef(drawn.T) - np.eye(NUMBERS)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_the_image_given_is_not_changed() -> None:
    image = picture(16)
    before = image.copy()
    augment_image(image, draw_numbers(0, 1, "a"), Augmentation())
    np.testing.assert_array_equal(image, before)
