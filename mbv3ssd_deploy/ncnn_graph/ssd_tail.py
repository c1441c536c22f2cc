"""The SSD tail: from raw heads to detections, as ncnn layers behind a body.

    loc  ----------------------------------------- mbox_loc ----------.
    conf -> mbox_conf -> Softmax ----------------- mbox_conf_softmax --+- DetectionOutput
    feature maps -> PriorBox, MemoryData -> Concat mbox_priorbox -----'       -> detection_out

mbox_loc (w 4, h P), mbox_conf and mbox_conf_softmax (w C, h P) are prior-major; mbox_priorbox
(w 4P, h 2) holds normalised corners over variances. A row of detection_out is label, score, x1, y1,
x2, y2; without detections the blob is empty. Source: ncnn, `layer/priorbox.cpp` and
`layer/detectionoutput.cpp`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.ncnn_graph.edit import with_blobs_renamed, without_dead_layers
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, NcnnLayer, Param, Weight
from mbv3ssd_deploy.ncnn_graph.head_levels import (
    CONF,
    LOC,
    HeadLevel,
    check_head_levels,
    find_head_levels,
)
from mbv3ssd_deploy.ncnn_graph.layers import build_layer
from mbv3ssd_deploy.ncnn_graph.prior_plan import (
    PRIOR_BOX,
    LevelPlan,
    PriorMode,
    PriorPlan,
    level_corners,
    plan_priors,
)

__all__ = [
    "LevelPlan",
    "Outputs",
    "PriorMode",
    "PriorPlan",
    "TailOptions",
    "attach_raw_heads",
    "attach_ssd_tail",
    "plan_priors",
]

MBOX_LOC: Final = "mbox_loc"
MBOX_CONF: Final = "mbox_conf"
MBOX_CONF_SOFTMAX: Final = "mbox_conf_softmax"
MBOX_PRIORBOX: Final = "mbox_priorbox"
DETECTION_OUT: Final = "detection_out"


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

    Attributes:
        priors: who decides between PriorBox and constants.
        score_threshold: a score must be strictly above it.
        iou_threshold: of non-maximum suppression.
        nms_top_k: candidates a class; for no limit, the number of priors (ncnn throws on -1).
        keep_top_k: detections in all; the same holds.
    """

    priors: PriorMode
    score_threshold: float
    iou_threshold: float
    nms_top_k: int
    keep_top_k: int


def attach_ssd_tail(
    graph: NcnnGraph, spec: DetectorSpec, options: TailOptions
) -> tuple[NcnnGraph, PriorPlan]:
    """Return `graph` with blobs `loc` and `conf` led on to `detection_out`, and the prior plan.

    Raises:
        SpecError: the heads are not those of `spec`, or a level's priors cannot travel as asked.
    """
    levels = find_head_levels(graph)
    check_head_levels(levels, spec)
    plan = plan_priors(spec, options.priors)
    body = with_blobs_renamed(graph, {LOC: MBOX_LOC, CONF: MBOX_CONF})
    maps = [level.feature_map for level in levels]
    tail = (*_prior_layers(spec, plan, maps), *_detection_layers(spec, options))
    return NcnnGraph((*body.layers, *tail)), plan


def attach_raw_heads(graph: NcnnGraph, outputs: Outputs) -> NcnnGraph:
    """Return `graph` ending in raw heads.

    Args:
        graph: with blobs `loc` and `conf`.
        outputs: CONCAT keeps `loc` (w 4, h P) and `conf` (w C, h P); LEVELS ends in `loc_0`.. and
            `conf_0`.., what the head convolutions make: (4 A, rows, cols), (C A, rows, cols).

    Raises:
        SpecError: the heads are built otherwise than `find_head_levels` knows them.
        ValueError: `outputs` are no raw heads.
    """
    if outputs is Outputs.CONCAT:
        return without_dead_layers(graph, (LOC, CONF))
    if outputs is not Outputs.LEVELS:
        raise ValueError(f"raw heads are CONCAT or LEVELS, not {outputs!r}")
    names = _level_names(find_head_levels(graph))
    renamed = with_blobs_renamed(graph, names)
    return without_dead_layers(renamed, names.values())


def _level_names(levels: tuple[HeadLevel, ...]) -> dict[str, str]:
    names = {level.loc: f"loc_{i}" for i, level in enumerate(levels)}
    return names | {level.conf: f"conf_{i}" for i, level in enumerate(levels)}


def _prior_layers(spec: DetectorSpec, plan: PriorPlan, maps: list[str]) -> Iterator[NcnnLayer]:
    runs = plan.runs()
    if len(runs) == 1:
        yield _prior_source(spec, runs[0], maps, MBOX_PRIORBOX)
        return
    blobs = tuple(f"{MBOX_PRIORBOX}_{_level_text(run)}" for run in runs)
    for run, blob in zip(runs, blobs, strict=True):
        yield _prior_source(spec, run, maps, blob)
    yield build_layer("Concat", MBOX_PRIORBOX, blobs, (MBOX_PRIORBOX,), {"axis": 1})


def _level_text(run: tuple[LevelPlan, ...]) -> str:
    return "_".join(str(plan.level) for plan in run)


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
