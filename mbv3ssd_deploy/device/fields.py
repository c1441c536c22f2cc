"""The fields of our binary files for C++: little-endian, close together, under one header."""

from __future__ import annotations

import struct
import zlib


def whole(*values: int) -> bytes:
    """Return 32 bits without sign each."""
    return struct.pack(f"<{len(values)}I", *values)


def real(*values: float) -> bytes:
    """Return an IEEE double each."""
    return struct.pack(f"<{len(values)}d", *values)


def text(words: str) -> bytes:
    """Return the length and so many bytes of UTF-8."""
    data = words.encode()
    return whole(len(data)) + data


def sealed(magic: bytes, version: int, body: bytes) -> bytes:
    """Return `body` under its header: magic, version, length, CRC-32."""
    return magic + whole(version, len(body), zlib.crc32(body)) + body
