"""The size of a picture from the first bytes of its file, so that a large data set opens fast.

Sources: PNG (W3C) 11.2.2; JPEG ITU-T T.81 annex B; Exif 2.3, tag 0x0112; BMP's BITMAPINFOHEADER.
"""

from __future__ import annotations

import colorsys
import contextlib
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np

from mbv3ssd_deploy.core.arrays import U8
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.errors import DatasetError, OutputError
from mbv3ssd_deploy.io.files import write_file

_PNG_START, _JPEG_START, _JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd9"
_TAIL = 65536
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
# Start-of-frame markers; C4, C8 and CC among them mean other things
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ORIENTATION_TAG = 0x0112
_QUARTER_TURNS = frozenset({5, 6, 7, 8})


def read_image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels of the picture as `read_image` returns it (EXIF applied).

    PNG, JPEG and BMP are not decoded: their header is read, and of a JPEG the end is looked at,
    so that one cut short by a broken copy is found here and not in the middle of a training.
    Other formats are decoded.

    Raises:
        DatasetError: the file is missing, ends early, or is not an image.
    """
    try:
        with path.open("rb") as file:
            size = _size_from_header(file)
    except FileNotFoundError:
        raise DatasetError("no such image", where=str(path)) from None
    except OSError as error:
        raise DatasetError(f"the image cannot be read: {error.strerror}", where=str(path)) from (
            error
        )
    if size is not None and min(size) > 0:
        return size
    height, width = read_image(path).shape[:2]  # slow but sure, and it says what is wrong
    return width, height


def _size_from_header(file: BinaryIO) -> tuple[int, int] | None:
    """Return the size, or None if only decoding shows it."""
    start = file.read(26)
    if start.startswith(_PNG_START) and len(start) == 26:
        return struct.unpack(">II", start[16:24])
    if start.startswith(b"BM") and len(start) == 26:
        width, height = struct.unpack("<ii", start[18:26])
        return width, abs(height)
    if start.startswith(_JPEG_START) and _has_jpeg_end(file):
        file.seek(2)
        return _size_from_jpeg(file)
    return None


def _has_jpeg_end(file: BinaryIO) -> bool:
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _TAIL))
    return _JPEG_END in file.read()


def _size_from_jpeg(file: BinaryIO) -> tuple[int, int] | None:
    """Read the segments up to the frame header; `file` is behind the start marker."""
    turned = False
    while True:
        marker = file.read(2)
        while marker.endswith(b"\xff"):  # fill bytes may precede a marker
            marker = b"\xff" + file.read(1)
            if len(marker) < 2:
                return None
        if len(marker) < 2 or marker[0] != 0xFF or marker[1] in (_SCAN, _END):
            return None
        if marker[1] in _STANDALONE:
            continue
        length_bytes = file.read(2)
        if len(length_bytes) < 2:
            return None
        segment = file.read(max(struct.unpack(">H", length_bytes)[0] - 2, 0))
        if marker[1] == _APP1 and segment.startswith(b"Exif\0\0"):
            turned = _exif_orientation(segment[6:]) in _QUARTER_TURNS
        if marker[1] in _FRAMES:
            if len(segment) < 5:
                return None
            height, width = struct.unpack(">HH", segment[1:5])
            return (height, width) if turned else (width, height)


def _exif_orientation(tiff: bytes) -> int:
    """Return the orientation (1..8) in a TIFF header's first directory; 1 by default."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (offset,) = struct.unpack(order + "I", tiff[4:8])
    if offset + 2 > len(tiff):
        return 1
    (count,) = struct.unpack(order + "H", tiff[offset : offset + 2])
    for index in range(count):
        entry = tiff[offset + 2 + 12 * index :][:12]
        if len(entry) == 12 and struct.unpack(order + "H", entry[:2])[0] == _ORIENTATION_TAG:
            orientation: int = struct.unpack(order + "H", entry[8:10])[0]
            return orientation
    return 1


IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


class LoadedImage(NamedTuple):
    """One picture and where it came from; `pixels` is RGB uint8 (H, W, 3)."""

    path: Path
    pixels: U8


class SkippedImage(NamedTuple):
    """A file that could not be read, and why."""

    path: Path
    reason: str


class ImageSet(NamedTuple):
    """What came of reading many files: the pictures, and the files left out with the reason."""

    images: tuple[LoadedImage, ...]
    skipped: tuple[SkippedImage, ...]


def list_images(path: Path) -> list[Path]:
    """Return the image files that `path` names, sorted by file name.

    A file is taken whatever its extension. Of a folder come the visible files with one of
    `IMAGE_EXTENSIONS`, in any case; subfolders are not entered.

    Raises:
        DatasetError: nothing is there, it cannot be listed, or the folder holds no image.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DatasetError(
            "no such file or folder of images",
            where=str(path),
            hint="give one image, or a folder with images",
        )
    try:
        entries = sorted(path.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"the folder cannot be listed: {error.strerror}", where=str(path)) from (
            error
        )
    images = [entry for entry in entries if _is_image(entry)]
    if not images:
        raise _no_images(path, entries)
    return images


def read_image(path: Path) -> U8:
    """Read a picture as RGB uint8 (H, W, 3), contiguous.

    Grey becomes three equal channels, transparency is dropped, 16 bits become 8, and the EXIF
    orientation is applied.

    Raises:
        DatasetError: the file is missing, cannot be opened, ends early, or is not an image.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError("no such image", where=str(path)) from None
    except OSError as error:
        raise DatasetError(f"the image cannot be read: {error.strerror}", where=str(path)) from (
            error
        )
    if not data:
        raise DatasetError("the image file is empty", where=str(path))
    if _ends_early(data):
        raise DatasetError("the image is incomplete: its file ends early", where=str(path))
    image_bgr = _decode(data)
    if image_bgr is None:
        raise DatasetError("the file is broken, or no image that OpenCV can read", where=str(path))
    return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_images(paths: Iterable[Path]) -> ImageSet:
    """Read many pictures; broken ones among good ones are left out and accounted for.

    Raises:
        DatasetError: none of them could be read (each is named), or there were none.
    """
    images, skipped = [], []
    for path in paths:
        try:
            images.append(LoadedImage(path, read_image(path)))
        except DatasetError as error:
            skipped.append(SkippedImage(path, error.message))
    if not images:
        raise DatasetError(
            "\n  ".join(
                [f"none of the {len(skipped)} images could be read"]
                + [f"{path}: {reason}" for path, reason in skipped]
            ),
            hint="give images that open in a picture viewer",
        )
    return ImageSet(tuple(images), tuple(skipped))


def write_image(path: Path, image_rgb: U8) -> None:
    """Write a picture in the format its extension names, whole or not at all.

    Args:
        path: where to; folders on the way are made. PNG, BMP and WebP keep every pixel.
        image_rgb: RGB uint8 (H, W, 3).

    Raises:
        OutputError: the extension is unknown, or the file cannot be written; a file that was there
            before is untouched.
    """
    if path.suffix.lower() not in IMAGE_EXTENSIONS:
        raise OutputError(
            f"no image format has the extension {path.suffix!r}",
            where=str(path),
            hint=f"use one of {', '.join(IMAGE_EXTENSIONS)}",
        )
    write_file(path, _encode(path.suffix.lower(), image_rgb))


def draw_detections(image_rgb: U8, detections_px: Detections, class_names: Sequence[str]) -> U8:
    """Return a copy of the picture with boxes, class names and scores drawn on it.

    Args:
        image_rgb: RGB uint8 (H, W, 3); it stays as it is.
        detections_px: corners in pixels of this picture; the best score comes out on top.
        class_names: by label, background first; a label beyond them is written as a number.
    """
    canvas = np.ascontiguousarray(image_rgb).copy()
    height, width = canvas.shape[:2]
    line = max(1, round(max(height, width) / 250))
    edge = line + 2 * max(1, line // 2)  # dark, so that the box shows on every background
    # far outside the picture is as good as just outside, and fits OpenCV's 16-bit drawing
    limits = np.array([width, height, width, height], np.float64)
    captions = []
    for index in np.argsort(detections_px.scores, kind="stable"):
        box = np.asarray(detections_px.boxes[index], np.float64)
        if not np.isfinite(box).all():
            continue
        x1, y1, x2, y2 = np.clip(box, -limits, 2 * limits).round().astype(int).tolist()
        label = int(detections_px.labels[index])
        name = class_names[label] if label < len(class_names) else f"class {label}"
        cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), edge, cv2.LINE_AA)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), _class_colour(label), line, cv2.LINE_AA)
        caption = f"{name} {float(detections_px.scores[index]):.2f}"
        captions.append((caption, (x1, y1), _class_colour(label)))
    for caption, corner, colour in captions:  # after the boxes: no line crosses a name
        _draw_caption(canvas, caption, corner, colour, line)
    return canvas


def _class_colour(label: int) -> tuple[int, int, int]:
    # steps of the golden ratio never come near an earlier hue
    red, green, blue = colorsys.hsv_to_rgb((0.02 + label * 0.618034) % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_caption(
    canvas: U8, text: str, corner: tuple[int, int], colour: tuple[int, int, int], line: int
) -> None:
    """Write `text` on a plate of `colour` that sits on the box's corner, inside the picture."""
    height, width = canvas.shape[:2]
    scale = max(0.38, max(height, width) / 1300)
    thickness = max(1, round(1.6 * scale))
    (text_width, text_height), descent = cv2.getTextSize(
        text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness
    )
    pad = line + 1
    plate_width, plate_height = text_width + 2 * pad, text_height + descent + 2 * pad
    x = min(max(corner[0], 0), max(width - plate_width, 0))
    above = corner[1] - plate_height
    y = min(above if above >= 0 else max(corner[1], 0), max(height - plate_height, 0))
    cv2.rectangle(canvas, (x, y), (x + plate_width, y + plate_height), colour, cv2.FILLED)
    red, green, blue = colour
    ink = (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else (255, 255, 255)
    place = (x + pad, y + pad + text_height)
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")  # "._a.jpg" is what macOS leaves beside a.jpg
    return path.suffix.lower() in IMAGE_EXTENSIONS and not hidden and not path.is_dir()


def _no_images(folder: Path, entries: list[Path]) -> DatasetError:
    folders = [entry for entry in entries if entry.is_dir()]
    kinds = Counter(entry.suffix.lower() or "no extension" for entry in entries if entry.is_file())
    parts = [f"{count} x {kind}" for kind, count in kinds.most_common(5)]
    if folders:
        parts.append(f"{len(folders)} folders")
    return DatasetError(
        f"the folder holds no image ({', '.join(IMAGE_EXTENSIONS)}); "
        f"it holds {', '.join(parts) or 'nothing'}",
        where=str(folder),
        hint=_folder_with_images(folders),
    )


def _folder_with_images(folders: list[Path]) -> str:
    for folder in folders:
        with contextlib.suppress(OSError):
            count = sum(map(_is_image, folder.iterdir()))
            if count:
                return f"{folder} holds {count} images: subfolders are not searched, so name it"
    return "give one image, or a folder with images"


def _ends_early(data: bytes) -> bool:
    """Return whether a PNG or JPEG is truncated.

    Asked before decoding because some OpenCV versions fill the missing part of a JPEG with grey
    and call it a picture. Never true for a whole file, whatever follows its end.
    """
    if data.startswith(_PNG_START):
        return _PNG_END not in data
    if data.startswith(_JPEG_START):
        return data.rfind(_JPEG_END) < max(data.find(_JPEG_SCAN), 2)
    return False


def _decode(data: bytes) -> cv2.typing.MatLike | None:
    with silent_opencv():
        try:
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # more pixels than OpenCV agrees to read
            return None


@contextlib.contextmanager
def silent_opencv() -> Iterator[None]:
    """Keep OpenCV's own complaints off stderr: the caller gets an error that names the file."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _encode(extension: str, image_rgb: U8) -> bytes:
    options = {
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],  # above 100 means lossless
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
        ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    }
    image_bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(extension, image_bgr, options.get(extension, []))
    return encoded.tobytes()
