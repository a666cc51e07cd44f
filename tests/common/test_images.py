"""A sound picture keeps its pixels; anything else is a named error, never a blank or half a picture."""

import io
import itertools
import os
import pickle
import socket
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from common import config
from common.data.images import ImageError, read_image, read_mask, resize_image, resize_mask
from common.errors import StudyError
from common.names import printable

HEIGHT, WIDTH = 48, 64


def slice_like() -> np.ndarray:
    """A head-like disc with a gradient and a bright rim, not symmetric in any direction."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    radius = np.hypot(rows - 22, (columns - 30) * 0.8)
    values = np.where(radius < 18, 60 + 2 * columns, 0) + np.where(abs(radius - 19) < 1.5, 250, 0)
    return np.clip(values, 0, 255).astype(np.uint8)


GREY = slice_like()


def encoded(picture: np.ndarray | Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(
        stream, file_format, **options
    )
    return stream.getvalue()


def written(folder: Path, data: bytes, name: str = "slice.png") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def fault_of(path: Path) -> str:
    """The message; it must name the file, hold a fault and a remedy, and be one line."""
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message == printable(f"{path} {caught.value.fault}; {caught.value.remedy}")
    assert "\n" not in message
    return caught.value.fault


# --- what is read ------------------------------------------------------------------------------------------------


def grey_files() -> dict[str, bytes]:
    sixteen = GREY.astype(np.uint16) * 257  # 0..255 spread over 0..65535
    alpha = np.full_like(GREY, 200)
    return {
        "grey png": encoded(GREY, "PNG"),
        "grey bmp": encoded(GREY, "BMP"),
        "grey tiff": encoded(GREY, "TIFF"),
        "grey tiff lzw": encoded(GREY, "TIFF", compression="tiff_lzw"),
        "16-bit png": encoded(sixteen, "PNG"),
        "16-bit tiff": encoded(sixteen, "TIFF"),
        "16-bit rgb png": cv2.imencode(".png", np.dstack([sixteen] * 3))[1].tobytes(),
        "rgb png": encoded(np.dstack([GREY] * 3), "PNG"),
        "palette png": encoded(Image.fromarray(GREY).convert("P"), "PNG"),
        "grey and constant alpha": encoded(np.dstack([GREY, alpha]), "PNG"),
        "rgb and constant alpha": encoded(np.dstack([GREY] * 3 + [alpha]), "PNG"),
        "rgb and alpha 0": encoded(np.dstack([GREY] * 3 + [alpha * 0]), "PNG"),
    }


@pytest.mark.parametrize("kind", grey_files())
def test_lossless_grey_keeps_its_values(tmp_path: Path, kind: str) -> None:
    image = read_image(written(tmp_path, grey_files()[kind]))
    assert image.dtype == np.uint8
    assert image.flags.writeable
    np.testing.assert_array_equal(image, GREY)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_decoded_as_opencv_does(tmp_path: Path, mode: str, progressive: bool) -> None:
    smooth = cv2.GaussianBlur(GREY, (0, 0), 2)
    path = written(
        tmp_path, encoded(Image.fromarray(smooth).convert(mode), "JPEG", progressive=progressive), "s.jpg"
    )
    image = read_image(path)
    np.testing.assert_allclose(image, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), atol=1)
    assert np.abs(image.astype(int) - smooth).mean() < 2


def test_depth_decides_the_scale_not_the_content(tmp_path: Path) -> None:
    dim = np.full((20, 20), 4096 + 255, np.uint16)
    dim[0, 0] = 0
    image = read_image(written(tmp_path, encoded(dim, "PNG")))
    assert set(np.unique(image)) == {0, (4096 + 255) >> 8}
    full = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    np.testing.assert_array_equal(read_image(written(tmp_path, encoded(full, "PNG"))), full >> 8)


def test_twelve_bit_tiff_uses_its_own_depth(tmp_path: Path) -> None:
    values = np.arange(16 * 32, dtype=np.uint16).reshape(16, 32) * 8  # 0..4088 of 4095
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
    )
    tags = [
        (256, 32),
        (257, 16),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 16),
        (279, packed.size),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHIHH", t, 3, 1, v, 0) for t, v in tags)
    header = struct.pack("<2sHI", b"II", 42, 8 + packed.size)
    data = header + packed.astype(np.uint8).tobytes() + directory + struct.pack("<I", 0)
    np.testing.assert_array_equal(read_image(written(tmp_path, data)), values >> 4)


def test_few_bits_are_spread_over_the_range(tmp_path: Path) -> None:
    one = Image.fromarray(GREY > 100)
    np.testing.assert_array_equal(
        read_image(written(tmp_path, encoded(one, "PNG"))), (GREY > 100) * np.uint8(255)
    )
    levels = np.arange(16, dtype=np.uint8).repeat(16).reshape(16, 16)  # grey PNG of 4 bits, packed by hand
    rows = b"".join(b"\0" + ((row[::2] << 4) | row[1::2]).astype(np.uint8).tobytes() for row in levels)
    np.testing.assert_array_equal(read_image(written(tmp_path, png_file(16, 16, rows, depth=4))), levels * 17)


def test_a_see_through_picture_is_laid_on_black(tmp_path: Path) -> None:
    alpha = np.full_like(GREY, 255)
    alpha[:, :20] = 0
    alpha[:, 20:40] = 128
    expected = (GREY.astype(float) * alpha / 255).round()
    np.testing.assert_allclose(
        read_image(written(tmp_path, encoded(np.dstack([GREY, alpha]), "PNG"))), expected, atol=1
    )
    key = int(GREY[22, 30])  # one grey value declared transparent
    keyed = read_image(written(tmp_path, encoded(GREY, "PNG", transparency=key)))
    np.testing.assert_array_equal(keyed, np.where(key == GREY, 0, GREY))
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    keyed = read_image(written(tmp_path, encoded(deep, "PNG", transparency=key * 257)))
    np.testing.assert_array_equal(keyed, np.where(key == GREY, 0, GREY))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation_is_applied_once(tmp_path: Path, orientation: int, file_format: str) -> None:
    upright = cv2.resize(GREY, (128, 96), interpolation=cv2.INTER_LINEAR)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {274: orientation}} if file_format == "TIFF" else {"exif": exif}
    image = read_image(written(tmp_path, encoded(np.ascontiguousarray(stored), file_format, **options)))
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 4


def test_jpeg_noise_and_a_slight_tint_are_no_colour(tmp_path: Path) -> None:
    tinted = np.clip(GREY[..., None].astype(int) + np.array([8, 0, -8]), 0, 255).astype(np.uint8)
    image = read_image(written(tmp_path, encoded(tinted, "JPEG", quality=60)))
    assert image.shape == GREY.shape
    assert np.abs(image.astype(int) - GREY).mean() < 8  # a grey picture came out, about as it went in


def test_a_single_tinted_pixel_takes_the_luma(tmp_path: Path) -> None:
    """ITU-R 601: 0.299 R + 0.587 G + 0.114 B; equal channels keep their value."""
    picture = np.dstack([GREY] * 3)
    picture[22, 30] = (100, 110, 130)
    expected = GREY.copy()
    expected[22, 30] = 109  # 109.29
    np.testing.assert_array_equal(read_image(written(tmp_path, encoded(picture, "PNG"))), expected)


# --- what is refused ---------------------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_file(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_painted_lesion_is_refused(tmp_path: Path) -> None:
    painted = np.dstack([GREY] * 3)
    painted[20:26, 30:36] = [200, 40, 40]
    for file_format in ("PNG", "JPEG"):
        assert "coloured" in fault_of(written(tmp_path, encoded(painted, file_format)))
    palette = Image.fromarray(painted).quantize(64)
    assert "coloured" in fault_of(written(tmp_path, encoded(palette, "PNG")))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "empty"),
        (b"not a picture at all", "no JPEG, PNG, BMP, TIFF picture"),
        (encoded(GREY, "GIF"), "no JPEG, PNG, BMP, TIFF picture"),
        (encoded(GREY.astype(np.float32), "TIFF"), "float"),
        (encoded(GREY.astype(np.int32), "TIFF"), "32-bit"),
        (encoded(GREY.astype(np.uint16) * 16, "PNG"), "would come out black"),
        (encoded(Image.fromarray(np.dstack([GREY] * 4), mode="CMYK"), "JPEG"), "CMYK"),
        (encoded(np.zeros((15, 40), np.uint8), "PNG"), "40 x 15 px"),
        (png_file(9000, 9000, b""), "9000 x 9000 px"),
        (png_file(12000, 12000, b""), "too large"),
        (png_file(50_000, 50_000, b""), "too large"),
        (encoded(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]), "several pictures"),
        (
            encoded(GREY, "PNG", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
            "several pictures",
        ),
    ],
)
def test_named_faults(tmp_path: Path, data: bytes, fault: str) -> None:
    assert fault in fault_of(written(tmp_path, data))


@pytest.mark.filterwarnings("default")  # as in a user's process, where Pillow's own warnings are no errors
def test_a_bomb_is_refused_whatever_the_warning_filters(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    before = list(warnings.filters)
    assert "too large" in fault_of(written(tmp_path, png_file(12_000, 12_000, b"")))
    assert warnings.filters == before
    assert not recwarn.list


SOUND = {
    "jpeg": encoded(GREY, "JPEG"),
    "progressive": encoded(GREY, "JPEG", progressive=True),
    "rgb jpeg": encoded(np.dstack([GREY] * 3), "JPEG"),
    "png": encoded(GREY, "PNG"),
    "16-bit png": encoded(GREY.astype(np.uint16) * 257, "PNG"),
    "palette": encoded(Image.fromarray(GREY).convert("P"), "PNG", transparency=3),
    "rgba": encoded(np.dstack([GREY] * 3 + [255 - GREY]), "PNG"),
    "bmp": encoded(GREY, "BMP"),
    "tiff": encoded(GREY, "TIFF", tiffinfo={274: 6}),
    "lzw": encoded(GREY, "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", SOUND)
def test_every_truncation_is_an_error_or_loses_no_pixel(tmp_path: Path, kind: str) -> None:
    data = SOUND[kind]
    whole = read_image(written(tmp_path, data))
    refused = 0
    lengths = sorted({*range(0, len(data), 37), *range(len(data) - 40, len(data))})
    for length in lengths:
        try:
            np.testing.assert_array_equal(read_image(written(tmp_path, data[:length])), whole)
        except ImageError:
            refused += 1
    assert refused >= len(lengths) - 5  # the last checksum or padding bytes may be missing


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png"])
def test_a_copy_filled_up_with_zeros_is_an_error(tmp_path: Path, kind: str) -> None:
    data = SOUND[kind]
    half = len(data) * 2 // 3
    assert "damaged" in fault_of(written(tmp_path, data[:half] + bytes(len(data) - half)))


def test_truncated_files_stay_errors_when_another_library_allows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("bmp", "tiff"):
        assert "truncated" in fault_of(written(tmp_path, SOUND[kind][: len(SOUND[kind]) // 2]))


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_png_data_is_an_error(tmp_path: Path, bit: int) -> None:
    data = bytearray(SOUND["png"])
    data[len(data) // 2] ^= 1 << bit
    assert "damaged" in fault_of(written(tmp_path, bytes(data)))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(SOUND[draw(st.sampled_from(sorted(SOUND)))])
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data)) | st.integers(0, 60))
        length = draw(st.integers(0, 12))
        data[place : place + length] = draw(st.binary(max_size=12))
    return bytes(data)


@given(data=mutated())
def test_nothing_but_image_error_comes_out_of_bad_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp(), data, "mutated")
    for read in (read_image, lambda path: read_mask(path, GREY.shape)):
        try:
            values = read(path)
        except ImageError:
            continue
        assert values.ndim == 2
        assert min(values.shape) >= config.MIN_IMAGE_PX


@given(
    data=st.binary(max_size=300),
    start=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", bytes(128) + b"DICM"]
    ),
)
def test_random_bytes_are_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes
) -> None:
    fault = fault_of(written(tmp_path_factory.getbasetemp(), start + data, "random"))
    what = "holds no picture" if start.endswith(b"DICM") else "is no JPEG, PNG, BMP, TIFF picture"
    assert fault.startswith(("is empty",) if not start + data else (what, "is damaged or incomplete"))


def test_what_is_no_file_is_named_and_does_not_hang(tmp_path: Path) -> None:
    assert "does not exist" in fault_of(tmp_path / "missing.png")
    assert "is a folder" in fault_of(tmp_path)
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    assert "no regular file" in fault_of(fifo)
    dangling = tmp_path / "dangling.png"
    dangling.symlink_to(tmp_path / "nowhere.png")
    assert "does not exist" in fault_of(dangling)
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert "cannot be read" in fault_of(loop)
    assert "cannot be read" in fault_of(tmp_path / "nul\0.png")
    with socket.socket(socket.AF_UNIX) as listener:
        name = os.path.relpath(tmp_path / "s.png")  # socket names are short
        listener.bind(name if len(name) < 100 else str(tmp_path / "s.png"))
        assert "no regular file" in fault_of(tmp_path / "s.png")


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, SOUND["png"])

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # chmod does not stop a superuser
    assert "may not be read" in fault_of(path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as stream:
        stream.truncate(config.MAX_FILE_BYTES + 1)  # sparse
    assert "MiB allowed" in fault_of(path)


def test_the_error_travels_between_processes() -> None:
    error = ImageError("a.png", "is empty", "copy it again")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(again, StudyError)
    assert (str(again), again.path, again.remedy) == (str(error), "a.png", "copy it again")


def test_threads_leave_the_warning_filters_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [written(tmp_path, SOUND["png"], name) for name in ("a.png", "b.png")]
    before = list(warnings.filters)
    opening = Image.open
    second = threading.Event()
    calls = itertools.count()

    def overlapping_open(*arguments: object, **options: object) -> Image.Image:
        """The first to come waits for the second to be inside too, which then stays longer."""
        call = next(calls)
        if call == 0:
            second.wait(0.2)
        elif call == 1:
            second.set()
            time.sleep(0.1)
        return opening(*arguments, **options)

    monkeypatch.setattr(Image, "open", overlapping_open)
    with ThreadPoolExecutor(2) as pool:
        for image in pool.map(read_image, paths):
            np.testing.assert_array_equal(image, GREY)
    assert warnings.filters == before


# --- masks -------------------------------------------------------------------------------------------------------


def lesion() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:20, 12:30] = True
    mask[40, 50] = True
    return mask


def mask_files() -> dict[str, bytes]:
    mask = lesion()
    palette = Image.fromarray(mask.astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    several = mask.astype(np.uint8)
    several[10:12, 12:30] = 5  # AISD numbers its lesions 1, 2, 3, 5
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[mask] = [200, 0, 0]
    return {
        "0/255": encoded(mask.astype(np.uint8) * 255, "PNG"),
        "0/1": encoded(mask.astype(np.uint8), "PNG"),
        "1 bit": encoded(Image.fromarray(mask), "PNG"),
        "0/1 in 16 bits": encoded(mask.astype(np.uint16), "PNG"),
        "palette": encoded(palette, "PNG"),
        "label map": encoded(several, "PNG"),
        "rgb": encoded(np.dstack([mask.astype(np.uint8) * 255] * 3), "PNG"),
        "red": encoded(red, "PNG"),
        "rgba": encoded(np.dstack([red, np.full_like(GREY, 255)]), "PNG"),
        "bmp": encoded(mask.astype(np.uint8) * 255, "BMP"),
    }


@pytest.mark.parametrize("kind", mask_files())
def test_masks_are_read_exactly(tmp_path: Path, kind: str) -> None:
    mask = read_mask(written(tmp_path, mask_files()[kind]), (HEIGHT, WIDTH))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, lesion())


def test_an_empty_mask_is_empty(tmp_path: Path) -> None:
    for file_format in ("PNG", "JPEG"):
        assert not read_mask(written(tmp_path, encoded(np.zeros_like(GREY), file_format)), GREY.shape).any()


def test_soft_edges_are_cut_at_half_of_the_maximum(tmp_path: Path) -> None:
    soft = np.zeros((HEIGHT, WIDTH), np.uint8)
    soft[20, :] = np.arange(WIDTH) * 3  # 0..189
    mask = read_mask(written(tmp_path, encoded(soft, "PNG")), GREY.shape)
    np.testing.assert_array_equal(mask, soft > 94)
    block = np.zeros((HEIGHT, WIDTH), np.uint8)
    block[16:32, 16:40] = 255
    ringing = read_mask(written(tmp_path, encoded(block, "JPEG", quality=40)), GREY.shape)
    np.testing.assert_array_equal(ringing, block > 0)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(lesion(), "PNG"))
    with pytest.raises(ImageError, match="is 64 x 48 px, its picture 48 x 64 px"):
        read_mask(path, (WIDTH, HEIGHT))
    with pytest.raises(ImageError, match="does not exist"):
        read_mask(tmp_path / "none.png", (WIDTH, HEIGHT))


# --- size --------------------------------------------------------------------------------------------------------


def test_shrinking_by_a_whole_factor_is_the_mean() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    mean = image.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_image(image, 16), mean, atol=0.51)  # rounding


def test_a_fine_stripe_pattern_does_not_alias() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (100, 50))
    assert np.ptp(resize_image(stripes, 30)[2:-2, 2:-2].astype(int)) < 60


def test_same_size_is_unchanged_and_a_copy() -> None:
    image = np.ascontiguousarray(GREY[:, :HEIGHT])
    resized = resize_image(image, HEIGHT)
    np.testing.assert_array_equal(resized, image)
    assert not np.shares_memory(resized, image)


def test_aspect_ratio_is_kept_on_black() -> None:
    image = np.full((30, 60), 200, np.uint8)
    for size in (20, 40, 121):
        resized = resize_image(image, size)
        assert resized.shape == (size, size)
        rows = np.flatnonzero(resized.any(axis=1))
        assert abs(len(rows) - size / 2) <= 0.5
        assert abs(rows[0] - (size - 1 - rows[-1])) <= 1
        assert set(np.unique(resized)) == {0, 200}
        np.testing.assert_array_equal(resize_image(image.T.copy(), size), resized.T)


@given(height=st.integers(16, 200), width=st.integers(16, 200), size=st.integers(16, 150))
def test_any_shape_fits(height: int, width: int, size: int) -> None:
    assert resize_image(np.full((height, width), 9, np.uint8), size).shape == (size, size)
    full = resize_mask(np.ones((height, width), dtype=bool), size)
    np.testing.assert_array_equal(full, resize_image(np.full((height, width), 255, np.uint8), size) == 255)


def test_a_mask_shrinks_by_coverage() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[0:4, 0:4] = True  # one new pixel, wholly
    mask[0:2, 4:8] = True  # half of one
    mask[1, 8:12] = True  # a quarter of one
    resized = resize_mask(mask, 16)
    assert resized.dtype == np.bool_
    assert np.argwhere(resized).tolist() == [[0, 0], [0, 1]]


@given(
    st.lists(st.tuples(st.integers(0, 199), st.integers(0, 149)), min_size=1, max_size=12),
    st.integers(16, 300),
)
def test_no_lesion_vanishes(points: list[tuple[int, int]], size: int) -> None:
    mask = np.zeros((200, 150), dtype=bool)
    for point in points:
        mask[point] = True
    resized = resize_mask(mask, size)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    reach = 200 / size  # a new pixel spans so many old ones
    found = np.argwhere(resized) - [0, (size - round(150 * size / 200)) // 2]
    assert len(found) <= max(1, mask.sum() * 1.5 / min(1.0, reach) ** 2 + 12 / min(1.0, reach))
    for lesion_number in range(1, count):
        centre = np.argwhere(labels == lesion_number).mean(axis=0)
        assert np.abs((found + 0.5) * reach - centre - 0.5).max(axis=1).min() <= reach + 6


def test_a_small_lesion_keeps_the_pixel_that_holds_most_of_it() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[5, 6:11] = True  # two old pixels in new column 1, three in column 2
    mask[41, 38:42] = True  # two in each of columns 9 and 10: the first
    assert np.argwhere(resize_mask(mask, 16)).tolist() == [[1, 2], [10, 9]]


def test_empty_masks_stay_empty() -> None:
    assert not resize_mask(np.zeros((100, 80), dtype=bool), 32).any()


# --- real pictures -----------------------------------------------------------------------------------------------


def test_real_slices(shared_data: Path) -> None:
    pictures = sorted((shared_data / "binary_ct" / "Brain_Data_Organised" / "Stroke").glob("*.jpg"))[::40]
    masks = shared_data / "binary_ct" / "masks" / "Stroke"
    assert pictures
    for picture in pictures:
        image = read_image(picture)
        np.testing.assert_array_equal(image, cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE))
        mask = masks / f"{picture.stem}.png"
        if mask.exists():
            lesion_mask = read_mask(mask, image.shape)
            assert 0 < lesion_mask.mean() < 0.5
            assert resize_mask(lesion_mask, 128).any()


def test_real_overlays_are_refused_and_their_slices_read(shared_data: Path) -> None:
    folder = shared_data / "strokes_ct" / "Brain_Stroke_CT_Dataset" / "Bleeding"
    overlays = sorted((folder / "OVERLAY").glob("*.png"))[::9]
    assert overlays
    for overlay in overlays:
        assert "coloured" in fault_of(overlay)
        assert read_image(folder / "PNG" / overlay.name).shape == (512, 512)
