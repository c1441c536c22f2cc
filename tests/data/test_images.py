import cv2
import numpy as np
import pytest

from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.data.images import (
    IMAGE_EXTENSIONS,
    draw_detections,
    list_images,
    read_image,
    read_images,
    write_image,
)
from mbv3ssd_deploy.errors import DatasetError, OutputError


def picture(height=40, width=60, seed=0):
    pixels = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (height, width, 3))
    return cv2.GaussianBlur(pixels.astype(np.uint8), (0, 0), 2)


def detections(*rows):
    """Rows of x1, y1, x2, y2, score, label."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5])


# --------------------------------------------------------------------------------- listing


def test_a_folder_lists_its_images_by_name(tmp_path):
    for name in ("b.JPG", "a.png", "c.webp", "d.jpeg", "e.BMP", "notes.txt", "._b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()

    names = [path.name for path in list_images(tmp_path)]

    assert names == ["a.png", "b.JPG", "c.webp", "d.jpeg", "e.BMP"]


def test_a_file_stands_for_itself(tmp_path):
    path = tmp_path / "photo.jfif"
    path.write_bytes(b"x")

    assert list_images(path) == [path]


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(DatasetError) as caught:
        list_images(tmp_path / "nowhere")

    assert caught.value.where == str(tmp_path / "nowhere")
    assert "no such file or folder" in caught.value.message


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    for name in ("a.txt", "b.txt", "c.xml", "README"):
        (tmp_path / name).write_bytes(b"x")

    with pytest.raises(DatasetError) as caught:
        list_images(tmp_path)

    assert caught.value.where == str(tmp_path)
    assert "2 x .txt" in caught.value.message
    assert "1 x .xml" in caught.value.message
    assert "1 x no extension" in caught.value.message
    assert all(extension in caught.value.message for extension in IMAGE_EXTENSIONS)


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(DatasetError, match="it holds nothing"):
        list_images(tmp_path)


def test_a_folder_of_folders_points_at_the_one_with_images(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(b"x")

    with pytest.raises(DatasetError) as caught:
        list_images(tmp_path)

    assert "2 folders" in caught.value.message
    assert "JPEGImages" in caught.value.hint


# --------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("extension", [".png", ".bmp", ".webp", ".PNG"])
def test_what_was_written_is_read_again(tmp_path, extension):
    image = picture()
    path = tmp_path / f"picture{extension}"

    write_image(path, image)

    assert np.array_equal(read_image(path), image)


def test_jpeg_keeps_colours_in_rgb_order(tmp_path):
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 200

    write_image(tmp_path / "red.jpg", image)

    assert np.abs(read_image(tmp_path / "red.jpg").astype(int) - image).max() <= 3


def test_unicode_and_blanks_in_paths(tmp_path):
    folder = tmp_path / "Bilder für 猫"
    path = folder / "ein Bild Ω.png"

    write_image(path, picture())

    assert list_images(folder) == [path]
    assert np.array_equal(read_image(path), picture())


def test_grey_becomes_rgb_and_alpha_is_dropped(tmp_path):
    image = picture()
    cv2.imwrite(str(tmp_path / "grey.png"), image[..., 0])
    bgra = np.dstack([image[..., ::-1], np.full(image.shape[:2], 9, np.uint8)])
    cv2.imwrite(str(tmp_path / "alpha.png"), bgra)

    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(image[..., :1], 3, axis=2))
    assert np.array_equal(read_image(tmp_path / "alpha.png"), image)


def test_sixteen_bits_become_eight(tmp_path):
    image = picture()
    cv2.imwrite(str(tmp_path / "deep.png"), image[..., ::-1].astype(np.uint16) * 257)

    assert np.array_equal(read_image(tmp_path / "deep.png"), image)


def test_the_exif_orientation_is_applied(tmp_path):
    upright = cv2.imencode(".jpg", picture(height=40, width=60))[1].tobytes()
    exif = (
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01"  # one entry, big-endian
        b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"  # Orientation = 6: turn right
        b"\x00\x00\x00\x00"
    )
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    path = tmp_path / "turned.jpg"
    path.write_bytes(upright[:2] + segment + upright[2:])
    plain = tmp_path / "plain.jpg"
    plain.write_bytes(upright)

    assert np.array_equal(read_image(path), np.rot90(read_image(plain), -1))


# --------------------------------------------------------------------------------- broken files


def broken(kind):
    whole = {ext: cv2.imencode(ext, picture(90, 120))[1].tobytes() for ext in IMAGE_EXTENSIONS}
    return {
        "empty.png": b"",
        "text.jpg": b"this is no picture\n" * 20,
        "half.jpg": whole[".jpg"][: len(whole[".jpg"]) // 2],
        "half.png": whole[".png"][: len(whole[".png"]) // 2],
        "half.bmp": whole[".bmp"][: len(whole[".bmp"]) // 2],
        "half.webp": whole[".webp"][: len(whole[".webp"]) // 2],
        "header.jpg": whole[".jpg"][:30],
        "header.png": whole[".png"][:20],
        "no_scan.jpg": whole[".jpg"][:2] + b"\xff\xd9",
    }[kind]


KINDS = (
    "empty.png",
    "text.jpg",
    "half.jpg",
    "half.png",
    "half.bmp",
    "half.webp",
    "header.jpg",
    "header.png",
    "no_scan.jpg",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_image_is_an_error_that_names_it_and_nothing_else_is_said(tmp_path, kind, capfd):
    path = tmp_path / kind
    path.write_bytes(broken(kind))

    with pytest.raises(DatasetError) as caught:
        read_image(path)

    assert caught.value.where == str(path)
    assert capfd.readouterr() == ("", "")


def test_a_picture_with_something_behind_its_end_is_no_broken_picture(tmp_path):
    whole = cv2.imencode(".jpg", picture())[1].tobytes()
    (tmp_path / "trailer.jpg").write_bytes(whole + b"\xff\xda and a film" * 10)

    assert read_image(tmp_path / "trailer.jpg").shape == (40, 60, 3)


def test_a_missing_image_and_a_folder_are_errors(tmp_path):
    with pytest.raises(DatasetError, match="no such image"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DatasetError, match="directory"):
        read_image(tmp_path)


def test_broken_ones_among_good_ones_are_skipped_and_accounted_for(tmp_path):
    for name in ("a.png", "c.png"):
        write_image(tmp_path / name, picture())
    (tmp_path / "b.png").write_bytes(broken("half.png"))
    (tmp_path / "d.jpg").write_bytes(b"")

    found = read_images(list_images(tmp_path))

    assert [image.path.name for image in found.images] == ["a.png", "c.png"]
    assert all(np.array_equal(image.pixels, picture()) for image in found.images)
    assert [(path.name, reason) for path, reason in found.skipped] == [
        ("b.png", "the image is incomplete: its file ends early"),
        ("d.jpg", "the image file is empty"),
    ]


def test_nothing_but_broken_images_is_an_error_that_names_them_all(tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"")

    with pytest.raises(DatasetError) as caught:
        read_images(list_images(tmp_path))

    assert "none of the 2 images" in caught.value.message
    assert "a.jpg" in caught.value.message
    assert "b.png" in caught.value.message


# --------------------------------------------------------------------------------- writing


def test_an_unknown_extension_is_refused(tmp_path):
    with pytest.raises(OutputError) as caught:
        write_image(tmp_path / "picture.gif", picture())

    assert ".png" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken.png").mkdir()

    with pytest.raises(OutputError):
        write_image(tmp_path / "taken.png", picture())

    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


# --------------------------------------------------------------------------------- drawing


def test_drawing_leaves_the_original_alone():
    image = picture(120, 160)
    before = image.copy()

    drawn = draw_detections(image, detections([20, 30, 90, 100, 0.9, 1]), ("background", "cat"))

    assert np.array_equal(image, before)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert not np.array_equal(drawn, image)


def test_a_read_only_picture_can_be_drawn_on():
    image = picture()
    image.setflags(write=False)

    drawn = draw_detections(image, detections([5, 5, 30, 30, 0.9, 1]), ("background", "cat"))

    assert drawn.flags.writeable


def test_the_box_is_drawn_where_the_detection_is():
    image = np.full((200, 300, 3), 128, np.uint8)

    drawn = draw_detections(image, detections([60, 80, 200, 160, 0.9, 1]), ("background", "cat"))
    rows, columns = np.nonzero((drawn != image).any(axis=2))

    assert abs(columns.min() - 60) <= 3
    assert abs(columns.max() - 200) <= 3
    assert abs(rows.max() - 160) <= 3
    assert np.array_equal(drawn[100:150, 70:190], image[100:150, 70:190])  # the inside stays


def test_classes_have_colours_of_their_own():
    image = np.zeros((200, 200, 3), np.uint8)
    names = ("background", *"abcdefgh")
    colours = {
        tuple(draw_detections(image, detections([20, 50, 180, 190, 0.5, k]), names)[190, 100])
        for k in range(1, 9)
    }

    assert len(colours) == 8


def test_lines_and_names_grow_with_the_picture():
    def touched(side):
        image = np.full((side, side, 3), 77, np.uint8)
        box = np.array([0.1, 0.3, 0.9, 0.9]) * side
        drawn = draw_detections(image, detections([*box, 0.9, 1]), ("background", "cat"))
        return (drawn != image).any(axis=2).mean()

    assert 0.5 < touched(2000) / touched(500) < 2


@pytest.mark.parametrize(
    "row",
    [
        [-500, -500, 1e9, 1e9, 0.9, 1],
        [np.nan, 0, 10, 10, 0.9, 1],
        [0, 0, np.inf, 10, 0.9, 1],
        [30, 30, 30, 30, 0.9, 1],
        [5, 5, 20, 20, 0.9, 99],
    ],
    ids=["outside", "nan", "infinite", "empty", "unnamed"],
)
def test_odd_boxes_do_not_break_the_drawing(row):
    image = picture(64, 64)

    assert draw_detections(image, detections(row), ("background", "cat")).shape == image.shape


def test_no_detection_draws_nothing():
    image = picture()

    assert np.array_equal(draw_detections(image, detections(), ("background", "cat")), image)
