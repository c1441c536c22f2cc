"""The contract of a model as bytes for C++: `model.mbv3c`, or the same as a C header.

`docs/formats/contract.md` describes it; `cpp_postprocess/src/contract.cpp` reads it. It holds the
spec's input, priors, box coder, decode rules and classes. Our binary files for C++ have
little-endian fields without padding, under one header.
"""

from __future__ import annotations

import enum
import re
import struct
import zlib

from mbv3ssd_deploy.core.spec import (
    BoxCoder,
    BoxEdges,
    ChannelOrder,
    ClipRule,
    DecodeSpec,
    DetectorSpec,
    InputSpec,
    NmsScope,
    PriorRounding,
    PriorSpec,
    ResizeRule,
    ResultOrder,
)
from mbv3ssd_deploy.errors import SpecError

CONTRACT = "model.mbv3c"
HEADER = "model_contract.h"
VERSION = 1

_MAGIC = b"MBV3SSDC"
# The limits of the reader.
_MAX_SIDE = 1 << 14
_MAX_PIXELS = 1 << 26
_MAX_SCORES = 1 << 24
_MAX_LIMIT = (1 << 32) - 1
_BYTES_A_LINE = 16

# A rule is stored as its index in its tuple.
_CODES: tuple[tuple[enum.StrEnum, ...], ...] = (
    (ChannelOrder.RGB, ChannelOrder.BGR),
    (ResizeRule.CV2_U8, ResizeRule.PIL_U8_ANTIALIAS, ResizeRule.FLOAT_AFTER_NORMALISE),
    (ClipRule.NONE, ClipRule.CORNERS, ClipRule.CENTRE_FORM, ClipRule.SIZES),
    (PriorRounding.NONE, PriorRounding.PIXEL_CORNERS),
    (ResultOrder.SCORE, ResultOrder.CLASS, ResultOrder.CLASS_PRIOR),
    (BoxEdges.CONTINUOUS, BoxEdges.INCLUSIVE),
    (NmsScope.CLASS, NmsScope.ALL_CLASSES),
)


def render_contract(spec: DetectorSpec) -> bytes:
    """Return the contract of `spec`, the bytes of a `model.mbv3c` file.

    Raises:
        SpecError: the detector exceeds limits of the C++ library; the message lists them all.
    """
    _check_size(spec)
    body = b"".join(
        (
            utf8(spec.name),
            utf8(spec.family),
            _input(spec.input),
            _priors(spec.priors),
            _coder(spec.coder),
            _decode(spec.decode),
            u32(spec.num_classes),
            *map(utf8, spec.class_names),
        )
    )
    return with_header(_MAGIC, VERSION, body)


def render_contract_header(spec: DetectorSpec) -> str:
    """Return a C header with the contract as an array, for boards without a file system.

    Raises:
        SpecError: as `render_contract`.
    """
    data = render_contract(spec)
    lines = (
        "    " + ", ".join(f"0x{byte:02X}" for byte in data[at : at + _BYTES_A_LINE]) + ","
        for at in range(0, len(data), _BYTES_A_LINE)
    )
    return "\n".join(
        (
            f"/* The contract of {_comment_text(spec.name)}, made by `mbv3ssd-deploy contract`:",
            " * give it to mbv3ssd_open_memory(mbv3ssd_contract, sizeof mbv3ssd_contract, ...). */",
            "#ifndef MBV3SSD_MODEL_CONTRACT_H",
            "#define MBV3SSD_MODEL_CONTRACT_H",
            "",
            "static const unsigned char mbv3ssd_contract[] = {",
            *lines,
            "};",
            "",
            "#endif",
            "",
        )
    )


def _check_size(spec: DetectorSpec) -> None:
    problems = []
    size = spec.input
    if max(size.width, size.height) > _MAX_SIDE or size.width * size.height > _MAX_PIXELS:
        problems.append(f"an input of {size.width} x {size.height} is too large")
    sides = [side for level in spec.priors.levels for side in (level.rows, level.cols)]
    if max(sides) > _MAX_SIDE or spec.priors.count * spec.num_classes > _MAX_SCORES:
        problems.append(
            f"{spec.priors.count} priors with {spec.num_classes} classes are more than "
            f"{_MAX_SCORES} scores, or are in more than {_MAX_SIDE} rows or columns"
        )
    if any((limit or 0) > _MAX_LIMIT for limit in _limits(spec.decode)):
        problems.append(f"a top-k is above {_MAX_LIMIT}")
    if problems:
        raise SpecError(f"too large for the C++ library: {'; '.join(problems)}", where=spec.name)


def _limits(decode: DecodeSpec) -> tuple[int | None, ...]:
    return decode.candidates_per_class, decode.keep_per_class, decode.keep_total


def _input(spec: InputSpec) -> bytes:
    codes = _codes(spec.channel_order, spec.resize)
    return u32(spec.width, spec.height) + codes + f64(*spec.mean, *spec.std)


def _priors(spec: PriorSpec) -> bytes:
    parts = [
        f64(spec.frame_width, spec.frame_height),
        _codes(spec.clip, spec.rounding),
        u32(len(spec.levels)),
    ]
    for level in spec.levels:
        parts.append(u32(level.rows, level.cols))
        parts.append(f64(level.step_x, level.step_y, level.min_size, level.max_size or 0.0))
        parts.append(u32(len(level.ratios)) + f64(*level.ratios))
    return b"".join(parts)


def _coder(coder: BoxCoder) -> bytes:
    lowest = -float("inf") if coder.min_log_size is None else coder.min_log_size
    highest = float("inf") if coder.max_log_size is None else coder.max_log_size
    return f64(coder.centre_variance, coder.size_variance, lowest, highest)


def _decode(decode: DecodeSpec) -> bytes:
    return b"".join(
        (
            f64(decode.score_threshold, decode.iou_threshold, decode.iou_epsilon),
            u32(*(limit or 0 for limit in _limits(decode))),
            u32(decode.clip_before_nms, decode.suppress_at_threshold),
            _codes(decode.order, decode.box_edges, decode.nms_scope),
        )
    )


def _codes(*rules: enum.StrEnum) -> bytes:
    # the type counts: StrEnum members of two rules may be equal as text
    return u32(*(next(t.index(r) for t in _CODES if type(t[0]) is type(r)) for r in rules))


def _comment_text(name: str) -> str:
    return re.sub(r"[^\w .,+-]", "_", name)


def u32(*values: int) -> bytes:
    """Return unsigned 32-bit integers."""
    return struct.pack(f"<{len(values)}I", *values)


def f64(*values: float) -> bytes:
    """Return IEEE doubles."""
    return struct.pack(f"<{len(values)}d", *values)


def utf8(value: str) -> bytes:
    """Return the length of the text in bytes, and the text."""
    data = value.encode()
    return u32(len(data)) + data


def with_header(magic: bytes, version: int, body: bytes) -> bytes:
    """Return `body` after its header: magic, version, length, CRC-32."""
    return magic + u32(version, len(body), zlib.crc32(body)) + body
