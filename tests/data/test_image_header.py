import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbv3ssd_deploy.data.images import read_image, read_image_size, write_image
from mbv3ssd_deploy.errors import DatasetError

PICTURE = np.random.default_rng(0).integers(0, 256, (19, 37, 3), dtype=np.uint8)


def jpeg(*options):
    return cv2.imencode(".jpg", PICTURE, list(options))[1].tobytes()


def with_exif(data, orientation, order="big"):
    mark = {"big": b"MM", "little": b"II"}[order]

    def short(value):
        return value.to_bytes(2, order)

    def long(value):
        return value.to_bytes(4, order)

    entry = short(0x0112) + short(3) + long(1) + short(orientation) + short(0)
    other = short(0x0100) + short(3) + long(1) + short(99) + short(0)
    tiff = mark + short(42) + long(8) + short(2) + other + entry + long(0)
    segment = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "A.JPEG"])
def test_the_size_is_that_of_the_picture(tmp_path, name):
    path = tmp_path / name
    write_image(path, PICTURE)

    assert read_image_size(path) == (37, 19)


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_turned_photograph_has_the_size_that_reading_gives(tmp_path, orientation, order):
    path = tmp_path / "a.jpg"
    path.write_bytes(with_exif(jpeg(), orientation, order))

    height, width = read_image(path).shape[:2]

    assert read_image_size(path) == (width, height)
    assert ((width, height) == (19, 37)) == (5 <= orientation <= 8)


def test_progressive_and_padded_jpegs(tmp_path):
    path = tmp_path / "a.jpg"
    progressive = jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    for data in (progressive, jpeg()[:2] + b"\xff\xff" + jpeg()[2:], jpeg() + b"behind the end"):
        path.write_bytes(data)
        assert read_image_size(path) == (37, 19)


def test_a_flipped_bitmap(tmp_path):
    path = tmp_path / "a.bmp"
    write_image(path, PICTURE)
    data = bytearray(path.read_bytes())
    data[22:26] = (-19).to_bytes(4, "little", signed=True)  # rows from the top
    path.write_bytes(data)

    assert read_image_size(path) == (37, 19)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"text", "no image"),
        (jpeg()[:-30], "ends early"),
        (jpeg()[:20], "ends early"),
        (b"\x89PNG\r\n\x1a\n", "ends early"),
        (b"BM", "no image"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_reason(tmp_path, data, words):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)

    with pytest.raises(DatasetError, match=words) as caught:
        read_image_size(path)

    assert caught.value.where == str(path)


def test_a_folder_and_nothing_at_all(tmp_path):
    with pytest.raises(DatasetError, match="Is a directory"):
        read_image_size(tmp_path)
    with pytest.raises(DatasetError, match="no such image"):
        read_image_size(tmp_path / "none.jpg")


@settings(max_examples=120, deadline=None)
@given(st.sampled_from([with_exif(jpeg(), 6), jpeg()]), st.data())
def test_damaged_headers_give_a_size_or_an_error_that_names_the_file(
    tmp_path_factory, data, choices
):
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    broken = bytearray(data)
    for _ in range(choices.draw(st.integers(1, 4))):
        at = choices.draw(st.integers(0, min(len(data), 400) - 1))
        broken[at] = choices.draw(st.integers(0, 255))
    path.write_bytes(broken)

    try:
        size, named = read_image_size(path), str(path)
    except DatasetError as error:
        size, named = (1, 1), error.where

    assert min(size) > 0
    assert named == str(path)
