"""One runtime compared with the reference, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

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
from mbv3ssd_deploy.core.matching import match_detections
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import FormatError, RuntimeFailedError
from mbv3ssd_deploy.ncnn_graph.detection_output import detections_from_detection_output
from mbv3ssd_deploy.ncnn_graph.graph import MBOX_CONF_SOFTMAX
from mbv3ssd_deploy.runtimes.model import Model
from mbv3ssd_deploy.runtimes.ncnn_model import NcnnModel
from mbv3ssd_deploy.verification.detections import (
    MATCH_IOUS,
    TIE,
    Cut,
    DetectionDiff,
    DetectionPair,
    compare_detections,
)
from mbv3ssd_deploy.verification.diagnosis import diagnosed_heads, near
from mbv3ssd_deploy.verification.reference import Chunk
from mbv3ssd_deploy.verification.report import Row, judged
from mbv3ssd_deploy.verification.rules import RULES, Check, Code, Reason, box_reasons, head_reasons
from mbv3ssd_deploy.verification.tensors import TensorDiff, compare_tensors, merged_diffs


@dataclass(frozen=True, slots=True)
class DecodedOutput:
    """The heads of a batch, and the detections decoded from them.

    Attributes:
        ran: the runtime and the provider that really ran.
        heads: by name, (N, P, ...): `loc`, `conf`, and for ncnn the softmaxed `scores`.
        detections: one list an image.
        seconds: of computation, without starting and loading.
    """

    ran: str
    heads: Mapping[str, F32]
    detections: tuple[Detections, ...]
    seconds: float


class ModelAdapter(Protocol):
    """A deployed model, its decoding, and its expected output."""

    @property
    def cut(self) -> Cut:
        """Where its lists end."""

    def run(self, inputs: F32) -> DecodedOutput:
        """Run `inputs` (N, 3, H, W) and decode the heads.

        Raises:
            RuntimeFailedError: the runtime refused the model or crashed.
            FormatError: the output does not have the shapes of the contract.
        """

    def expected(self, chunk: Chunk) -> DecodedOutput:
        """Return the reference's heads of `chunk`, decoded by the same rules as the model's."""

    def decode(self, loc: F32, scores: F32, spec: DetectorSpec) -> Detections:
        """Decode one image.

        Args:
            loc: (P, 4) raw offsets.
            scores: (P, C) after the softmax.
            spec: priors, coder and the family's rules.
        """


@dataclass(slots=True)
class RuntimeCheck:
    """Collects the differences of one runtime from the reference for its row.

    `runtime` is its name in the report; by default the one that the model reports.
    """

    check: Check
    title: str
    adapter: ModelAdapter
    spec: DetectorSpec
    precision: str = "fp32"
    runtime: str = ""
    ran: str = ""
    seconds: float = 0.0
    heads: dict[str, TensorDiff] = field(default_factory=dict)
    pairs: list[DetectionPair] = field(default_factory=list)
    broken: tuple[Reason, ...] = ()
    diagnosis: tuple[Reason, ...] = ()

    def update(self, chunk: Chunk) -> None:
        """Run the model on `chunk`, unless it has failed on an earlier one."""
        if self.broken:
            return
        try:
            actual = self.adapter.run(chunk.inputs)
        except RuntimeFailedError as error:
            self.broken = (Reason(Code.RUNTIME_FAILED, str(error)),)
            return
        except FormatError as error:
            self.broken = (Reason(Code.OUTPUT_SHAPE, error.message),)
            return
        expected = self.adapter.expected(chunk)
        self.broken = _unlike_shapes(expected, actual)
        if self.broken:
            return
        self.ran, self.seconds = self.runtime or actual.ran, self.seconds + actual.seconds
        self._compare_heads(chunk, expected, actual)
        self.pairs += [
            self._paired(name, index, expected, actual) for index, name in enumerate(chunk.names)
        ]

    def _paired(
        self, name: str, index: int, expected: DecodedOutput, actual: DecodedOutput
    ) -> DetectionPair:
        """Return both lists of one image and, where they differ, the list after ties."""
        ours, theirs = expected.detections[index], actual.detections[index]
        matching = match_detections(ours, theirs, MATCH_IOUS[0])
        if not (matching.lost or matching.new):
            return DetectionPair(name, ours, theirs)
        scores = with_ties(_scores_of(expected, index), _scores_of(actual, index))
        tied = self.adapter.decode(expected.heads["loc"][index], scores, self.spec)
        return DetectionPair(name, ours, theirs, tied)

    def _compare_heads(self, chunk: Chunk, expected: DecodedOutput, actual: DecodedOutput) -> None:
        tolerance = RULES[self.check].heads
        for name, tensor in expected.heads.items():
            diffs = [
                compare_tensors(name, ours, theirs, tolerance, image=image)
                for image, ours, theirs in zip(chunk.names, tensor, actual.heads[name], strict=True)
            ]
            before = [self.heads[name]] if name in self.heads else []
            self.heads[name] = merged_diffs([*before, *diffs])
        if self.diagnosis or not head_reasons(RULES[self.check], tuple(self.heads.values())):
            return
        self.diagnosis = self._diagnosed(chunk, expected, actual)

    def _diagnosed(
        self, chunk: Chunk, expected: DecodedOutput, actual: DecodedOutput
    ) -> tuple[Reason, ...]:
        """Try the usual mistakes on the first image; the input's colours by running once more."""
        ours = {name: tensor[0] for name, tensor in expected.heads.items()}
        found = diagnosed_heads(ours, {n: t[0] for n, t in actual.heads.items()}, self.spec)
        found += _scores_diagnosed(actual)
        if found or all(near(ours[n], actual.heads[n][0]) for n in ours):
            return found
        try:
            other = self.adapter.run(np.ascontiguousarray(chunk.inputs[:1, ::-1]))
        except (RuntimeFailedError, FormatError):
            return found
        if all(near(ours[name], other.heads[name][0]) for name in ours):
            text = "right when red and blue of its input are exchanged: it expects the other order"
            found += (Reason(Code.CHANNELS_REVERSED, text),)
        return found

    def row(self) -> Row:
        """Return the row over all images."""
        ran = ", ".join(part for part in (self.ran, self.precision) if part)
        if self.broken:
            return Row(self.check, self.title, ran, judged(self.broken), reasons=self.broken)
        rule, heads = RULES[self.check], tuple(self.heads.values())
        diff = compare_detections(self.pairs, self.adapter.cut)
        reasons = (*self.diagnosis, *head_reasons(rule, heads), *box_reasons(rule, diff))
        return Row(
            self.check,
            self.title,
            ran,
            judged(reasons),
            note=_tie_note(diff),
            reasons=reasons,
            heads=heads,
            detections=diff,
            seconds=self.seconds,
        )


def with_ties(expected: F32, actual: F32) -> F32:
    """Return `expected` with the scores of `actual` where they differ by at most `TIE`."""
    with np.errstate(invalid="ignore"):
        moved: F32 = np.where(np.abs(actual - expected) <= TIE, actual, expected)
    return moved


def _scores_of(actual: DecodedOutput, index: int) -> F32:
    """Return the softmaxed scores (P, C) of one image."""
    if "scores" in actual.heads:
        scores: F32 = actual.heads["scores"][index]
        return scores
    return softmax(actual.heads["conf"][index])


def _tie_note(diff: DetectionDiff) -> str:
    if not (diff.tied_lost or diff.tied_new):
        return ""
    return (
        f"{diff.tied_lost} lost and {diff.tied_new} new boxes are ties: the reference's own heads "
        f"give the same when scores move by {TIE:g} or less; counted as borderline"
    )


def _unlike_shapes(expected: DecodedOutput, actual: DecodedOutput) -> tuple[Reason, ...]:
    found = []
    for name, tensor in expected.heads.items():
        if name not in actual.heads:
            found.append(Reason(Code.OUTPUT_MISSING, f"the output {name} is missing"))
        elif actual.heads[name].shape != tensor.shape:
            text = f"{name} is {actual.heads[name].shape}, not {tensor.shape}"
            found.append(Reason(Code.OUTPUT_SHAPE, text))
    return tuple(found)


def _scores_diagnosed(actual: DecodedOutput) -> tuple[Reason, ...]:
    """Return a reason if scores are not probabilities: they do not sum to 1 over the classes."""
    scores = actual.heads.get("scores")
    if scores is None or not np.isfinite(scores).all():
        return ()
    sums = scores.sum(axis=-1)
    worst = float(np.abs(sums - 1).max())
    if worst <= 0.01 and float(scores.min()) >= 0:
        return ()
    text = f"the scores of a prior sum to {float(sums.max()):.4g}, not 1: the softmax is missing"
    return (Reason(Code.SCORES_NOT_SOFTMAX, text),)


@dataclass(frozen=True, slots=True)
class HeadsAdapter:
    """A model with raw heads: `contract`, the bundle's detector, decodes them.

    An ONNX body takes `batch` images at once.
    """

    model: Model
    contract: DetectorSpec
    batch: int = 1

    @property
    def cut(self) -> Cut:
        """Where its lists end."""
        decode = self.contract.decode
        return Cut(
            decode.score_threshold, decode.iou_threshold, decode.keep_total, decode.iou_epsilon
        )

    def run(self, inputs: F32) -> DecodedOutput:
        """Run `inputs`; a last batch that is not full is padded with its own last image."""
        missing = -len(inputs) % self.batch
        full = np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)])
        output = self.model.run(full)
        heads = {name: tensor[: len(inputs)] for name, tensor in output.tensors.items()}
        _check_shapes(heads, self.contract)
        pairs = zip(heads["loc"], heads["conf"], strict=True)
        found = tuple(detections_from_heads(loc, conf, self.contract) for loc, conf in pairs)
        return DecodedOutput(output.ran, heads, found, output.seconds)

    def expected(self, chunk: Chunk) -> DecodedOutput:
        """Return the reference's heads, and its boxes by the family's own rules."""
        return DecodedOutput("", {"loc": chunk.loc, "conf": chunk.conf}, chunk.detections, 0.0)

    def decode(self, loc: F32, scores: F32, spec: DetectorSpec) -> Detections:
        """Decode one image by the family's own rules."""
        boxes = decode_boxes(loc, build_priors(spec.priors), spec.coder)
        size = (spec.input.width, spec.input.height)
        return detections_from_scores(boxes, scores, spec.decode, size)


@dataclass(frozen=True, slots=True)
class DetectionOutputAdapter:
    """An ncnn graph that ends in DetectionOutput, compared with a numpy mirror of that layer.

    The mirror takes the reference's raw heads and the priors of `spec`, the checkpoint's own.
    """

    model: NcnnModel
    spec: DetectorSpec
    contract: DetectorSpec
    record: NcnnRecord

    @property
    def cut(self) -> Cut:
        """Where its lists end."""
        return cut_of_tail(self.record)

    def run(self, inputs: F32) -> DecodedOutput:
        """Run `inputs`; an empty `detection_out` means no detections."""
        output = self.model.run(inputs, (MBOX_CONF_SOFTMAX,))
        _check_shapes(output.tensors, self.contract)
        shape = output.conf.shape[1:]
        scores = [blobs[MBOX_CONF_SOFTMAX] for blobs in output.blobs]
        if any(one.size != np.prod(shape) for one in scores):
            raise FormatError(f"{MBOX_CONF_SOFTMAX} has {scores[0].size} numbers, not {shape}")
        heads = {**output.tensors, "scores": np.stack([one.reshape(shape) for one in scores])}
        return DecodedOutput(output.ran, heads, output.detections or (), output.seconds)

    def expected(self, chunk: Chunk) -> DecodedOutput:
        """Return the reference's heads, and the boxes of DetectionOutput's rules."""
        scores = np.stack([softmax(conf) for conf in chunk.conf])
        heads = {"loc": chunk.loc, "conf": chunk.conf, "scores": scores}
        return DecodedOutput("", heads, decode_by_tail(chunk, self.spec, self.record), 0.0)

    def decode(self, loc: F32, scores: F32, spec: DetectorSpec) -> Detections:
        """Decode one image by DetectionOutput's rules."""
        return _decode_by_tail(loc, scores, spec, self.record)


def cut_of_tail(record: NcnnRecord) -> Cut:
    """Return where lists of DetectionOutput end."""
    return Cut(record.score_threshold, record.iou_threshold, record.keep_top_k)


def decode_by_tail(chunk: Chunk, spec: DetectorSpec, record: NcnnRecord) -> tuple[Detections, ...]:
    """Return the boxes of DetectionOutput's rules for the reference's heads, image by image."""
    pairs = zip(chunk.loc, chunk.conf, strict=True)
    return tuple(_decode_by_tail(loc, softmax(conf), spec, record) for loc, conf in pairs)


def _decode_by_tail(loc: F32, scores: F32, spec: DetectorSpec, record: NcnnRecord) -> Detections:
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


def _check_shapes(heads: Mapping[str, F32], contract: DetectorSpec) -> None:
    priors, classes = contract.priors.count, contract.num_classes
    if heads["loc"].shape[1:] != (priors, 4) or heads["conf"].shape[1:] != (priors, classes):
        found = f"loc {heads['loc'].shape[1:]} and conf {heads['conf'].shape[1:]}"
        raise FormatError(f"{found} do not fit a contract of {priors} x {classes}")
