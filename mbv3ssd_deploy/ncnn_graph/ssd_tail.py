"""The SSD tail: from raw heads to detections, as ncnn layers behind a body.

    loc  ----------------------------------------- mbox_loc ----------.
    conf -> mbox_conf -> Softmax ----------------- mbox_conf_softmax --+- DetectionOutput
    feature maps -> PriorBox, MemoryData -> Concat mbox_priorbox -----'       -> detection_out

mbox_loc (w 4, h P), mbox_conf and mbox_conf_softmax (w C, h P) are prior-major; mbox_priorbox
(w 4P, h 2) holds normalised corners over variances. A row of detection_out is label, score, x1, y1,
x2, y2; without detections the blob is empty. Source: ncnn, `layer/priorbox.cpp` and
`layer/detectionoutput.cpp`.

The levels of the heads are found by walking back from the two outputs of the body:

    feature map -> ... -> head convolution -> Permute (h, w, c) -> Reshape (n, 4) -> Concat -> loc
    feature map -> ... -> head convolution -> Permute -> Flatten -> Concat -> Reshape (P, 4) -> loc

The second is what `fuse.shape.join_flat` makes of the first. A single level has no Concat, and a
map of one cell no Permute. The walk reads a graph without Splits.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

import numpy as np

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.ncnn_graph.edit import GraphView, with_blobs_renamed, without_dead_layers
from mbv3ssd_deploy.ncnn_graph.graph import (
    CONF,
    DETECTION_OUT,
    LOC,
    MBOX_CONF,
    MBOX_CONF_SOFTMAX,
    MBOX_LOC,
    MBOX_PRIORBOX,
    NcnnGraph,
    NcnnLayer,
    Param,
    Weight,
)
from mbv3ssd_deploy.ncnn_graph.layers import LINEAR_TYPES, PERMUTE_ORDERS, build_layer, int_param
from mbv3ssd_deploy.ncnn_graph.priors import (
    PRIOR_BOX,
    LevelPlan,
    PriorMode,
    PriorPlan,
    level_corners,
    plan_priors,
)
from mbv3ssd_deploy.ncnn_graph.shapes import Shape, infer_shapes

_POINTWISE: Final = frozenset({"ReLU", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "BatchNorm"})


class Outputs(enum.StrEnum):
    """Where the network ends."""

    DETECTIONS = "detections"
    """`detection_out`, with the SSD tail."""
    CONCAT = "concat"
    """`loc` [P, 4] and `conf` [P, C], raw."""
    LEVELS = "levels"
    """`loc_0`.., `conf_0`.. as [channels, rows, cols] maps, raw."""


@dataclass(frozen=True, slots=True)
class TailOptions:
    """How the priors travel, and the settings of DetectionOutput.

    Without a limit, `nms_top_k` (a class) and `keep_top_k` are the number of priors.
    """

    priors: PriorMode
    score_threshold: float
    iou_threshold: float
    nms_top_k: int
    keep_top_k: int


@dataclass(frozen=True, slots=True)
class HeadLevel:
    """The blobs of one level: what the last convolutions of its heads make, and what both read.

    `loc` is (4 A, rows, cols) for A boxes a cell, `conf` (C A, rows, cols), `feature_map` of the
    same rows and cols. The shapes are those of its parts of the outputs: (priors, 4), (priors, C).
    """

    loc: str
    conf: str
    feature_map: str
    loc_shape: tuple[int, int]
    conf_shape: tuple[int, int]


def attach_ssd_tail(
    graph: NcnnGraph, spec: DetectorSpec, options: TailOptions
) -> tuple[NcnnGraph, PriorPlan]:
    """Return `graph` from blobs `loc` and `conf` on to `detection_out`, and the prior plan.

    Raises:
        SpecError: the heads are not those of `spec`, or a level's priors cannot travel so.
    """
    levels = find_head_levels(graph)
    _check_head_levels(levels, spec)
    plan = plan_priors(spec, options.priors)
    body = with_blobs_renamed(graph, {LOC: MBOX_LOC, CONF: MBOX_CONF})
    maps = [level.feature_map for level in levels]
    tail = (*_prior_layers(spec, plan, maps), *_detection_layers(spec, options))
    return NcnnGraph((*body.layers, *tail)), plan


def attach_raw_heads(graph: NcnnGraph, outputs: Outputs) -> NcnnGraph:
    """Return `graph` ending in raw heads.

    CONCAT keeps `loc` (w 4, h P) and `conf` (w C, h P); LEVELS ends in `loc_0`.. and `conf_0`..,
    the outputs of the head convolutions: (4 A, rows, cols), (C A, rows, cols).

    Raises:
        SpecError: the heads have another structure than `find_head_levels` knows.
        ValueError: `outputs` is DETECTIONS.
    """
    if outputs is Outputs.CONCAT:
        return without_dead_layers(graph, (LOC, CONF))
    if outputs is not Outputs.LEVELS:
        raise ValueError(f"raw heads are CONCAT or LEVELS, not {outputs!r}")
    levels = find_head_levels(graph)
    names = {level.loc: f"{LOC}_{i}" for i, level in enumerate(levels)}
    names |= {level.conf: f"{CONF}_{i}" for i, level in enumerate(levels)}
    return without_dead_layers(with_blobs_renamed(graph, names), names.values())


def _prior_layers(spec: DetectorSpec, plan: PriorPlan, maps: list[str]) -> Iterator[NcnnLayer]:
    runs = plan.runs()
    if len(runs) == 1:
        yield _prior_source(spec, runs[0], maps, MBOX_PRIORBOX)
        return
    blobs = tuple("_".join((MBOX_PRIORBOX, *(str(p.level) for p in run))) for run in runs)
    for run, blob in zip(runs, blobs, strict=True):
        yield _prior_source(spec, run, maps, blob)
    yield build_layer("Concat", MBOX_PRIORBOX, blobs, (MBOX_PRIORBOX,), {"axis": 1})


def _prior_source(
    spec: DetectorSpec, run: tuple[LevelPlan, ...], maps: list[str], blob: str
) -> NcnnLayer:
    """Return the layer that makes the priors of the levels of `run`.

    PriorBox reads nothing but rows and columns of its blob; the image size is a parameter.
    """
    if run[0].layer == PRIOR_BOX:
        return build_layer(PRIOR_BOX, blob, (maps[run[0].level],), (blob,), run[0].params)
    corners = np.concatenate([level_corners(spec, plan.level) for plan in run])
    variances = np.broadcast_to(spec.coder.variances, corners.shape)
    data = np.stack((corners.ravel(), variances.ravel())).astype(np.float32)
    sizes: Mapping[str, Param] = {"w": data.shape[1], "h": 2}
    return build_layer("MemoryData", blob, (), (blob,), sizes, weights=(Weight("data", data),))


def _detection_layers(spec: DetectorSpec, options: TailOptions) -> Iterator[NcnnLayer]:
    softmax = {"axis": 1, "fixbug0": 1}
    yield build_layer("Softmax", MBOX_CONF_SOFTMAX, (MBOX_CONF,), (MBOX_CONF_SOFTMAX,), softmax)
    variances = {f"variances_{i}": v for i, v in enumerate(spec.coder.variances)}
    params: dict[str, Param] = {
        "num_class": spec.num_classes,
        "nms_threshold": options.iou_threshold,
        "nms_top_k": options.nms_top_k,
        "keep_top_k": options.keep_top_k,
        "confidence_threshold": options.score_threshold,
        **variances,
    }
    inputs = (MBOX_LOC, MBOX_CONF_SOFTMAX, MBOX_PRIORBOX)
    yield build_layer("DetectionOutput", DETECTION_OUT, inputs, (DETECTION_OUT,), params)


def find_head_levels(graph: NcnnGraph) -> tuple[HeadLevel, ...]:
    """Return the levels of a body whose blobs `loc` and `conf` are as `lower_body` makes them.

    Raises:
        SpecError: the heads have another structure.
    """
    view = GraphView(graph, (LOC, CONF))
    loc, conf = _level_maps(view, LOC), _level_maps(view, CONF)
    if len(loc) != len(conf):
        raise SpecError(f"the box head has {len(loc)} levels, the class head {len(conf)}")
    return tuple(
        HeadLevel(a, b, _common_map(view, a, b), a_shape, b_shape)
        for (a, a_shape), (b, b_shape) in zip(loc, conf, strict=True)
    )


def _check_head_levels(levels: tuple[HeadLevel, ...], spec: DetectorSpec) -> None:
    found = [(level.loc_shape, level.conf_shape) for level in levels]
    counts = [level.count for level in spec.priors.levels]
    expected = [((count, 4), (count, spec.num_classes)) for count in counts]
    wrong = [
        f"level {i}: the network has {_shapes_text(a)}, the spec {_shapes_text(b)}"
        for i, (a, b) in enumerate(zip_longest(found, expected))
        if a != b
    ]
    if wrong:
        raise SpecError("; ".join(wrong), where=spec.name, hint="export the checkpoint again")


def _shapes_text(shapes: tuple[tuple[int, int], tuple[int, int]] | None) -> str:
    return "none" if shapes is None else f"loc {shapes[0]} and conf {shapes[1]}"


def _level_maps(view: GraphView, output: str) -> list[tuple[str, tuple[int, int]]]:
    if not view.has_blob(output):
        raise SpecError(f"the graph makes no blob {output!r}")
    last = view.producer(output)
    before = view.producer(last.inputs[0]) if last.type == "Reshape" else last
    joins = before.type == "Concat" and int_param(before, "axis") == 0
    shapes = infer_shapes(view.graph).blobs
    width = shapes.get(output, (0,))[-1]
    parts = before.inputs if joins else (output,)
    return [_level_map(view, shapes, blob, width) for blob in parts]


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
    """Return the nearest blob behind both maps, of their size; `loc` where there is none."""
    behind_conf = set(_same_size_chain(view, conf))
    return next((blob for blob in _same_size_chain(view, loc) if blob in behind_conf), loc)


def _same_size_chain(view: GraphView, blob: str) -> Iterator[str]:
    """Yield `blob` and those before it, as long as rows and columns do not change."""
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
