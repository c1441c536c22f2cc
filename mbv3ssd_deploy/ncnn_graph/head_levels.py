"""Where the heads of a body are: level by level, found by walking back from its two outputs.

    feature map -> ... -> head convolution -> Permute (h, w, c) -> Reshape (n, 4) -> Concat -> loc
    feature map -> ... -> head convolution -> Permute -> Flatten -> Concat -> Reshape (P, 4) -> loc

The second is what `fuse/flat_concat.py` makes of the first. A single level has no Concat, and a map
of one cell no Permute. The walk reads a graph without Splits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.ncnn_graph.codes import PERMUTE_ORDERS
from mbv3ssd_deploy.ncnn_graph.edit import GraphView, int_param
from mbv3ssd_deploy.ncnn_graph.fuse.linear_layer import LINEAR_TYPES
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer
from mbv3ssd_deploy.ncnn_graph.shapes import Shape, infer_shapes

LOC: Final = "loc"
CONF: Final = "conf"

_POINTWISE: Final = frozenset({"ReLU", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "BatchNorm"})


@dataclass(frozen=True, slots=True)
class HeadLevel:
    """The blobs of one level, and how its part of the outputs is shaped.

    Attributes:
        loc: what the box head's last convolution makes, (4 A, rows, cols) for A boxes a cell.
        conf: what the class head's makes, (C A, rows, cols).
        feature_map: a blob of the same rows and cols that both heads read.
        loc_shape: rows and columns of its part of `loc`: priors, 4.
        conf_shape: of its part of `conf`: priors, C.
    """

    loc: str
    conf: str
    feature_map: str
    loc_shape: tuple[int, int]
    conf_shape: tuple[int, int]


def find_head_levels(graph: NcnnGraph) -> tuple[HeadLevel, ...]:
    """Return the levels of a body whose blobs `loc` and `conf` are as `lower_body` makes them.

    Raises:
        SpecError: the heads are built otherwise.
    """
    view = GraphView(graph, (LOC, CONF))
    loc, conf = _level_maps(view, LOC), _level_maps(view, CONF)
    if len(loc) != len(conf):
        raise SpecError(f"the box head has {len(loc)} levels, the class head {len(conf)}")
    return tuple(
        HeadLevel(a, b, _common_map(view, a, b), a_shape, b_shape)
        for (a, a_shape), (b, b_shape) in zip(loc, conf, strict=True)
    )


def check_head_levels(levels: tuple[HeadLevel, ...], spec: DetectorSpec) -> None:
    """Raise if `levels` are not those of `spec`.

    Raises:
        SpecError: naming every level whose priors or classes are not as many as the spec's.
    """
    found = [(level.loc_shape, level.conf_shape) for level in levels]
    counts = [level.count for level in spec.priors.levels]
    expected = [((count, 4), (count, spec.num_classes)) for count in counts]
    wrong = [
        f"level {i}: the network has {_text(a)}, the spec {_text(b)}"
        for i, (a, b) in enumerate(zip_longest(found, expected))
        if a != b
    ]
    if wrong:
        raise SpecError("; ".join(wrong), where=spec.name, hint="export the checkpoint again")


def _text(shapes: tuple[tuple[int, int], tuple[int, int]] | None) -> str:
    return "none" if shapes is None else f"loc {shapes[0]} and conf {shapes[1]}"


def _level_maps(view: GraphView, output: str) -> list[tuple[str, tuple[int, int]]]:
    if not view.has_blob(output):
        raise SpecError(f"the graph makes no blob {output!r}")
    shapes = infer_shapes(view.graph).blobs
    width = shapes.get(output, (0,))[-1]
    return [_level_map(view, shapes, blob, width) for blob in _parts(view, output)]


def _parts(view: GraphView, output: str) -> tuple[str, ...]:
    """Return the blobs that are joined to `output`, or `output` alone."""
    last = view.producer(output)
    before = view.producer(last.inputs[0]) if last.type == "Reshape" else last
    joins = before.type == "Concat" and int_param(before, "axis") == 0
    return before.inputs if joins else (output,)


def _level_map(
    view: GraphView, shapes: Mapping[str, Shape], blob: str, width: int
) -> tuple[str, tuple[int, int]]:
    """Return the head convolution's blob behind `blob`, and its part of the output as (h, w)."""
    last = view.producer(blob)
    if last.type in {"Reshape", "Flatten"} and len(shapes.get(blob, ())) < 3:
        before = view.producer(last.inputs[0])
        is_permute = before.type == "Permute"
        source = before.inputs[0] if is_permute else last.inputs[0]
        channels, *cells = shapes.get(source, (0,))
        is_cell = cells == [1, 1] or (not cells and before.type == "InnerProduct")
        is_turned = is_permute and int_param(before, "order_type") == PERMUTE_ORDERS["cwh"]
        if channels and width and channels % width == 0 and (is_turned or is_cell):
            return source, (channels * math.prod(cells) // width, width)
    raise SpecError(
        "a head of one level is a map whose axes are put in the order rows, columns, channels, and "
        f"cut into priors; this one ends in {last.type}",
        where=blob,
    )


def _common_map(view: GraphView, loc: str, conf: str) -> str:
    """Return the nearest blob that both maps are made of, all of one size; `loc` if none is."""
    behind_conf = set(_same_size_chain(view, conf))
    return next((blob for blob in _same_size_chain(view, loc) if blob in behind_conf), loc)


def _same_size_chain(view: GraphView, blob: str) -> Iterator[str]:
    """Yield `blob` and those before it, as long as rows and columns stay what they are."""
    while True:
        yield blob
        layer = view.producer(blob)
        if len(layer.inputs) != 1 or not _keeps_map_size(layer):
            return
        blob = layer.inputs[0]


def _keeps_map_size(layer: NcnnLayer) -> bool:
    if layer.type in _POINTWISE or layer.type == "BinaryOp":
        return True
    if layer.type not in LINEAR_TYPES or layer.type == "InnerProduct":
        return False
    return all(
        int_param(layer, f"stride_{axis}") == 1
        and int_param(layer, f"pad_{before}") + int_param(layer, f"pad_{after}")
        == (int_param(layer, f"kernel_{axis}") - 1) * int_param(layer, f"dilation_{axis}")
        for axis, before, after in (("w", "left", "right"), ("h", "top", "bottom"))
    )
