"""The size of a picture from the first bytes of its file, so that a large data set opens fast.

Sources: PNG (W3C) 11.2.2; JPEG ITU-T T.81 annex B; Exif 2.3, tag 0x0112; BMP's BITMAPINFOHEADER.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from mbv3ssd_deploy.data.images import read_image
from mbv3ssd_deploy.errors import DatasetError

_PNG_START, _JPEG_START, _JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd9"
_TAIL = 65536
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
# Start-of-frame markers; C4, C8 and CC among them mean other things
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ORIENTATION_TAG = 0x0112
_QUARTER_TURNS = frozenset({5, 6, 7, 8})


def read_image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels of the picture as `read_image` gives it (EXIF applied).

    PNG, JPEG and BMP are not decoded: their header is read, and of a JPEG the end is looked at,
    so that one cut short by a broken copy is found here and not in the middle of a training.
    Other formats are decoded.

    Raises:
        DatasetError: the file is missing, ends early, or is no image.
    """
    try:
        with path.open("rb") as file:
            size = _size_from_header(file)
    except FileNotFoundError:
        raise DatasetError("there is no such image", where=str(path)) from None
    except OSError as error:
        raise DatasetError(f"the image cannot be read: {error.strerror}", where=str(path)) from (
            error
        )
    if size is not None and min(size) > 0:
        return size
    height, width = read_image(path).shape[:2]  # slow but sure, and it says what is wrong
    return width, height


def _size_from_header(file: BinaryIO) -> tuple[int, int] | None:
    """Return the size, or None where only decoding can tell."""
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
    """Walk the segments up to the frame header; `file` stands behind the start marker."""
    turned = False
    while True:
        marker = file.read(2)
        while marker.endswith(b"\xff"):  # fill bytes may stand before a marker
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
    """Return the orientation (1..8) that a TIFF header's first directory gives; 1 by default."""
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
