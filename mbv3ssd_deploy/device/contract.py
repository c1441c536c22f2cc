"""The contract of a model as bytes for C++: `model.mbv3c`, or the same as a C header.

`docs/formats/contract.md` describes it; `cpp_postprocess/src/contract.cpp` reads it. It holds what
the spec says about input, priors, boxes, decoding and classes, so that nothing is retyped.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable

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
from mbv3ssd_deploy.device.fields import real, sealed, text, whole
from mbv3ssd_deploy.errors import SpecError

CONTRACT = "model.mbv3c"
HEADER = "model_contract.h"
VERSION = 1

_MAGIC = b"MBV3SSDC"
# What the reader takes; beyond that it suspects a hostile file.
_MAX_SIDE = 1 << 14
_MAX_PIXELS = 1 << 26
_MAX_SCORES = 1 << 24
_MAX_LIMIT = (1 << 32) - 1
_BYTES_A_LINE = 16

# The number of each rule is its place in these tuples.
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
        SpecError: the detector is larger than the C++ library takes; all that is too large is told.
    """
    _check_size(spec)
    body = b"".join(
        (
            text(spec.name),
            text(spec.family),
            _input(spec.input),
            _priors(spec.priors),
            _coder(spec.coder),
            _decode(spec.decode),
            whole(spec.num_classes),
            *map(text, spec.class_names),
        )
    )
    return sealed(_MAGIC, VERSION, body)


def render_contract_header(spec: DetectorSpec) -> str:
    """Return a C header that holds the contract as an array, for boards without a file system.

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
            f"/* The contract of {_in_a_comment(spec.name)}, made by `mbv3ssd-deploy contract`:",
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
            f"{_MAX_SCORES} scores, or stand in more than {_MAX_SIDE} rows or columns"
        )
    if any((limit or 0) > _MAX_LIMIT for limit in _limits(spec.decode)):
        problems.append(f"a top-k is above {_MAX_LIMIT}")
    if problems:
        raise SpecError(f"too large for the C++ library: {'; '.join(problems)}", where=spec.name)


def _limits(decode: DecodeSpec) -> tuple[int | None, ...]:
    return decode.candidates_per_class, decode.keep_per_class, decode.keep_total


def _input(spec: InputSpec) -> bytes:
    codes = _codes(spec.channel_order, spec.resize)
    return whole(spec.width, spec.height) + codes + real(*spec.mean, *spec.std)


def _priors(spec: PriorSpec) -> bytes:
    parts = [
        real(spec.frame_width, spec.frame_height),
        _codes(spec.clip, spec.rounding),
        whole(len(spec.levels)),
    ]
    for level in spec.levels:
        parts.append(whole(level.rows, level.cols))
        parts.append(real(level.step_x, level.step_y, level.min_size, level.max_size or 0.0))
        parts.append(whole(len(level.ratios)) + real(*level.ratios))
    return b"".join(parts)


def _coder(coder: BoxCoder) -> bytes:
    least = -float("inf") if coder.min_log_size is None else coder.min_log_size
    most = float("inf") if coder.max_log_size is None else coder.max_log_size
    return real(coder.centre_variance, coder.size_variance, least, most)


def _decode(decode: DecodeSpec) -> bytes:
    return b"".join(
        (
            real(decode.score_threshold, decode.iou_threshold, decode.iou_epsilon),
            whole(*(limit or 0 for limit in _limits(decode))),
            whole(decode.clip_before_nms, decode.suppress_at_threshold),
            _codes(decode.order, decode.box_edges, decode.nms_scope),
        )
    )


def _codes(*rules: enum.StrEnum) -> bytes:
    return whole(*(_code(rule, _CODES) for rule in rules))


def _code(rule: enum.StrEnum, tables: Iterable[tuple[enum.StrEnum, ...]]) -> int:
    # by type too: StrEnum members of two rules may be equal as words
    return next(table.index(rule) for table in tables if type(table[0]) is type(rule))


def _in_a_comment(words: str) -> str:
    return re.sub(r"[^\w .,+-]", "_", words)
