"""From an ONNX body to a whole ncnn network: lower, fuse, attach the tail, split, store.

One function, so that `verify` can make the same network again and compare the shipped one with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.ncnn_graph.check import check_graph
from mbv3ssd_deploy.ncnn_graph.edit import insert_splits
from mbv3ssd_deploy.ncnn_graph.fuse.passes import fuse_graph
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph, Storage
from mbv3ssd_deploy.ncnn_graph.lower.body import lower_body
from mbv3ssd_deploy.ncnn_graph.param_text import parse_param, render_param
from mbv3ssd_deploy.ncnn_graph.precision import ALL_MASKS, PrecisionMasks, with_precision_masks
from mbv3ssd_deploy.ncnn_graph.priors import PriorMode, PriorPlan
from mbv3ssd_deploy.ncnn_graph.ssd_tail import (
    Outputs,
    TailOptions,
    attach_raw_heads,
    attach_ssd_tail,
)
from mbv3ssd_deploy.ncnn_graph.weight_bin import parse_bin, render_bin, with_storage
from mbv3ssd_deploy.onnx_body.body import OnnxBody

LARGEST_LIMIT: Final = 2**31 - 1
"""Of a top-k: ncnn reads 32 bits."""

LEAST_SCORE_THRESHOLD: Final = 1e-6
"""ncnn decodes no prior whose background reaches 1 - threshold. The step of float32 below 1 is
6e-8: under a threshold near that, the background is rounded to 1 with a class still above it."""


@dataclass(frozen=True, slots=True)
class NcnnRequest:
    """How an ncnn network is to be built. None takes the family's own evaluation setting."""

    storage: Storage = Storage.FLOAT16
    outputs: Outputs = Outputs.DETECTIONS
    priors: PriorMode = PriorMode.AUTO
    score_threshold: float | None = None
    iou_threshold: float | None = None
    nms_top_k: int | None = None
    keep_top_k: int | None = None
    guards: PrecisionMasks = ALL_MASKS


@dataclass(frozen=True, slots=True)
class BuiltNcnn:
    """An ncnn network, its two files, and how its priors are carried (none with raw heads)."""

    graph: NcnnGraph
    options: TailOptions
    plan: PriorPlan | None
    param: bytes
    weights: bytes


def tail_options(spec: DetectorSpec, request: NcnnRequest) -> TailOptions:
    """Return the settings of DetectionOutput: the request's, else the family's.

    No limit becomes P, the number of priors: ncnn throws on -1 (docs/formats/ncnn-param.md).

    Raises:
        SpecError: a threshold outside 0..1, a score threshold that is too low for ncnn, or a top-k
            below 1.
    """
    decode, everything = spec.decode, spec.priors.count
    score = decode.score_threshold if request.score_threshold is None else request.score_threshold
    iou = decode.iou_threshold if request.iou_threshold is None else request.iou_threshold
    top_k = decode.candidates_per_class if request.nms_top_k is None else request.nms_top_k
    keep = decode.keep_total if request.keep_top_k is None else request.keep_top_k
    top_k, keep = (everything if limit is None else limit for limit in (top_k, keep))
    if not (0.0 <= score <= 1.0 and 0.0 <= iou <= 1.0):
        raise SpecError("--conf and --nms must lie within 0..1")
    if request.outputs is Outputs.DETECTIONS and score < LEAST_SCORE_THRESHOLD:
        raise SpecError(
            f"the score threshold must be at least {LEAST_SCORE_THRESHOLD:g}: ncnn leaves boxes"
            " undecoded below",
            hint="set one with --conf",
        )
    if not 1 <= min(top_k, keep) <= max(top_k, keep) <= LARGEST_LIMIT:
        raise SpecError(f"--top-k and --keep-top-k must lie within 1..{LARGEST_LIMIT}")
    return TailOptions(request.priors, score, iou, nms_top_k=top_k, keep_top_k=keep)


def build_ncnn(body: OnnxBody, request: NcnnRequest) -> BuiltNcnn:
    """Return the ncnn network of `body`, read back once from its own bytes.

    Raises:
        UnsupportedOpError: the body holds operators that have no ncnn form; all are named.
        SpecError: a batch other than 1, or priors that cannot be carried as requested.
        FormatError: our own reader refuses what our writer made; that is a bug of ours.
    """
    options = tail_options(body.spec, request)
    graph = fuse_graph(lower_body(body))
    plan: PriorPlan | None = None
    if request.outputs is Outputs.DETECTIONS:
        graph, plan = attach_ssd_tail(graph, body.spec, options)
    else:
        graph = attach_raw_heads(graph, request.outputs)
    graph = with_precision_masks(insert_splits(graph), request.guards)
    graph = with_storage(graph, request.storage)
    check_graph(graph)
    param, weights = render_param(graph).encode(), render_bin(graph)
    parse_bin(parse_param(param.decode(), source="our own .param"), weights, source="our own .bin")
    return BuiltNcnn(graph, options, plan, param, weights)
