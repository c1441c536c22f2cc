"""The runtimes as candidates: what each gives, and what it must give, by its own rules.

A body (ONNX Runtime, PyTorch on a GPU, ncnn with raw heads) is read by the family's own rules; an
ncnn graph that ends in DetectionOutput is held against a numpy mirror of that layer, fed with the
reference's raw heads and the checkpoint's own priors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile

import numpy as np

from mbv3ssd_deploy.bundle.manifest import NcnnRecord
from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.boxes import corners_from_centre, decode_boxes
from mbv3ssd_deploy.core.detections import (
    Detections,
    detections_from_heads,
    detections_from_scores,
    softmax,
)
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_detection_output
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
from mbv3ssd_deploy.runtimes.model import Model
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel
from mbv3ssd_deploy.verification.detections import Cut
from mbv3ssd_deploy.verification.reference import Chunk
from mbv3ssd_deploy.verification.runtime_check import Answer

TAIL_BLOBS = ("mbox_loc", "mbox_conf", "mbox_conf_softmax", "detection_out")
PRIOR_BLOB = "mbox_priorbox"
Blobs = Mapping[str, F32]


@dataclass(frozen=True, slots=True)
class BodyCandidate:
    """A runtime that gives `loc` and `conf`; `contract` says how a user reads them."""

    runtime: Model
    contract: DetectorSpec
    batch: int = 1

    @property
    def cut(self) -> Cut:
        """Where its lists end."""
        return cut_of_family(self.contract)

    def answer(self, inputs: F32) -> Answer:
        """Run `inputs`; a last batch that is not full is filled up with its own last image."""
        missing = -len(inputs) % self.batch
        full = np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)])
        result = self.runtime.run(full)
        heads = {name: tensor[: len(inputs)] for name, tensor in result.tensors.items()}
        found = _read_by_family(heads, self.contract)
        return Answer(result.ran, heads, found, result.seconds)

    def expected(self, chunk: Chunk) -> Answer:
        """Return the reference's heads, and its boxes by the family's own rules."""
        return Answer("", {"loc": chunk.loc, "conf": chunk.conf}, chunk.detections, 0.0)

    def read(self, loc: F32, scores: F32, spec: DetectorSpec) -> Detections:
        """Return what the family's own rules make of one image."""
        return _read_scores_by_family(loc, scores, spec)


@dataclass(frozen=True, slots=True)
class RawNcnnCandidate:
    """An ncnn graph that ends in raw heads, joined or level by level."""

    runtime: NcnnModel
    contract: DetectorSpec
    blobs: tuple[str, ...]

    @property
    def cut(self) -> Cut:
        """Where its lists end."""
        return cut_of_family(self.contract)

    def answer(self, inputs: F32) -> Answer:
        """Run `inputs` and join the levels."""
        result = self.runtime.run(inputs, self.blobs)
        images, classes = result.blobs, self.contract.num_classes
        heads = {
            "loc": np.stack([_joined(blobs, "loc", 4) for blobs in images]),
            "conf": np.stack([_joined(blobs, "conf", classes) for blobs in images]),
        }
        found = _read_by_family(heads, self.contract)
        return Answer("ncnn on cpu", heads, found, result.seconds)

    def expected(self, chunk: Chunk) -> Answer:
        """Return the reference's heads, and its boxes by the family's own rules."""
        return Answer("", {"loc": chunk.loc, "conf": chunk.conf}, chunk.detections, 0.0)

    def read(self, loc: F32, scores: F32, spec: DetectorSpec) -> Detections:
        """Return what the family's own rules make of one image."""
        return _read_scores_by_family(loc, scores, spec)


@dataclass(frozen=True, slots=True)
class DetectionOutputCandidate:
    """An ncnn graph that ends in `detection_out`.

    `spec` is the checkpoint's own, for the mirror; `contract` the bundle's.
    """

    runtime: NcnnModel
    spec: DetectorSpec
    contract: DetectorSpec
    record: NcnnRecord

    @property
    def cut(self) -> Cut:
        """Where its lists end."""
        return cut_of_tail(self.record)

    def answer(self, inputs: F32) -> Answer:
        """Run `inputs`; an empty `detection_out` is no detection, not an error."""
        result = self.runtime.run(inputs, TAIL_BLOBS)
        images, classes = result.blobs, self.contract.num_classes
        heads = {
            "loc": np.stack([_rows(blobs, "mbox_loc", 4) for blobs in images]),
            "conf": np.stack([_rows(blobs, "mbox_conf", classes) for blobs in images]),
            "scores": np.stack([_rows(blobs, "mbox_conf_softmax", classes) for blobs in images]),
        }
        return Answer("ncnn on cpu", heads, result.detections or (), result.seconds)

    def expected(self, chunk: Chunk) -> Answer:
        """Return the reference's heads, and what DetectionOutput must make of them."""
        scores = np.stack([softmax(conf) for conf in chunk.conf])
        heads = {"loc": chunk.loc, "conf": chunk.conf, "scores": scores}
        return Answer("", heads, detection_output_of(chunk, self.spec, self.record), 0.0)

    def read(self, loc: F32, scores: F32, spec: DetectorSpec) -> Detections:
        """Return what DetectionOutput makes of one image."""
        return _read_by_tail(loc, scores, spec, self.record)


def cut_of_family(spec: DetectorSpec) -> Cut:
    """Return where lists end by the family's own rules."""
    decode = spec.decode
    return Cut(decode.score_threshold, decode.iou_threshold, decode.keep_total, decode.iou_epsilon)


def cut_of_tail(record: NcnnRecord) -> Cut:
    """Return where lists of DetectionOutput end."""
    return Cut(record.score_threshold, record.iou_threshold, record.keep_top_k)


def detection_output_of(
    chunk: Chunk, spec: DetectorSpec, record: NcnnRecord
) -> tuple[Detections, ...]:
    """Return what DetectionOutput's rules make of the reference's raw heads, image by image."""
    pairs = zip(chunk.loc, chunk.conf, strict=True)
    return tuple(_read_by_tail(loc, softmax(conf), spec, record) for loc, conf in pairs)


def raw_blobs(outputs: Outputs, levels: int) -> tuple[str, ...]:
    """Return the names of the blobs that a graph with raw heads ends in."""
    if outputs is Outputs.CONCAT:
        return ("loc", "conf")
    return tuple(f"{name}_{level}" for name in ("loc", "conf") for level in range(levels))


def _read_by_family(heads: Blobs, contract: DetectorSpec) -> tuple[Detections, ...]:
    shape = (contract.priors.count, contract.num_classes)
    if heads["loc"].shape[1:] != (shape[0], 4) or heads["conf"].shape[1:] != shape:
        found = f"loc {heads['loc'].shape[1:]} and conf {heads['conf'].shape[1:]}"
        raise FormatError(f"{found} cannot be read by a contract of {shape[0]} x {shape[1]}")
    pairs = zip(heads["loc"], heads["conf"], strict=True)
    return tuple(detections_from_heads(loc, conf, contract) for loc, conf in pairs)


def _read_scores_by_family(loc: F32, scores: F32, spec: DetectorSpec) -> Detections:
    boxes = decode_boxes(loc, build_priors(spec.priors), spec.coder)
    size = (spec.input.width, spec.input.height)
    return detections_from_scores(boxes, scores, spec.decode, size)


def _read_by_tail(loc: F32, scores: F32, spec: DetectorSpec, record: NcnnRecord) -> Detections:
    return detections_from_detection_output(
        loc,
        scores,
        corners_from_centre(build_priors(spec.priors)).astype(np.float32),
        np.array(spec.coder.variances, np.float32),
        nms_threshold=record.iou_threshold,
        nms_top_k=record.nms_top_k,
        keep_top_k=record.keep_top_k,
        confidence_threshold=record.score_threshold,
    )


def _joined(blobs: Blobs, name: str, width: int) -> F32:
    """Return `name` (P, width) of one image, from one blob or from its levels' [channels, h, w]."""
    if name in blobs:
        return _rows(blobs, name, width)
    names = takewhile(lambda level: level in blobs, (f"{name}_{i}" for i in count()))
    cells = [blobs[level].transpose(1, 2, 0).reshape(-1) for level in names]
    return _as_rows(np.concatenate(cells), name, width)


def _rows(blobs: Blobs, name: str, width: int) -> F32:
    return _as_rows(blobs[name].reshape(-1), name, width)


def _as_rows(numbers: F32, name: str, width: int) -> F32:
    if not numbers.size or numbers.size % width:
        raise FormatError(f"{name} has {numbers.size} numbers, which are no rows of {width}")
    return numbers.reshape(-1, width)
