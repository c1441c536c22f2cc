"""One runtime compared with the reference, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count, takewhile
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
from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs
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
class Answer:
    """What a runtime made of a batch.

    Attributes:
        ran: the runtime and the provider that really ran.
        heads: by name, (N, P, ...): `loc`, `conf`, and for ncnn the softmaxed `scores`.
        detections: one list an image.
        seconds: of computation; what it takes to start and to load is not among them.
    """

    ran: str
    heads: Mapping[str, F32]
    detections: tuple[Detections, ...]
    seconds: float


class Candidate(Protocol):
    """A deployed runtime, and its expected output."""

    @property
    def cut(self) -> Cut:
        """Where its lists end."""

    def answer(self, inputs: F32) -> Answer:
        """Return what it makes of `inputs` (N, 3, H, W).

        Raises:
            RuntimeFailedError: it refused the model or crashed.
            FormatError: its output is not what the model promises.
        """

    def expected(self, chunk: Chunk) -> Answer:
        """Return what it must make of `chunk`, from the reference's raw heads by its own rules."""

    def read(self, loc: F32, scores: F32, spec: DetectorSpec) -> Detections:
        """Return what its rules make of one image.

        Args:
            loc: (P, 4) raw offsets.
            scores: (P, C) after the softmax.
            spec: priors, coder and the family's rules.
        """


@dataclass(slots=True)
class RuntimeCheck:
    """Collects the differences of one runtime from the reference for its row."""

    check: Check
    title: str
    candidate: Candidate
    spec: DetectorSpec
    precision: str = "fp32"
    ran: str = ""
    seconds: float = 0.0
    heads: dict[str, TensorDiff] = field(default_factory=dict)
    pairs: list[DetectionPair] = field(default_factory=list)
    broken: tuple[Reason, ...] = ()
    diagnosis: tuple[Reason, ...] = ()

    def update(self, chunk: Chunk) -> None:
        """Run the candidate on `chunk`; after a crash nothing more is asked of it."""
        if self.broken:
            return
        try:
            answer = self.candidate.answer(chunk.inputs)
        except RuntimeFailedError as error:
            self.broken = (Reason(Code.RUNTIME_FAILED, str(error)),)
            return
        except FormatError as error:
            self.broken = (Reason(Code.OUTPUT_SHAPE, error.message),)
            return
        expected = self.candidate.expected(chunk)
        self.broken = _unlike_shapes(expected, answer)
        if self.broken:
            return
        self.ran, self.seconds = answer.ran, self.seconds + answer.seconds
        self._compare_heads(chunk, expected, answer)
        self.pairs += [
            self._paired(name, index, expected, answer) for index, name in enumerate(chunk.names)
        ]

    def _paired(self, name: str, index: int, expected: Answer, answer: Answer) -> DetectionPair:
        """Return both lists of one image and, where they part, the witness of ties."""
        ours, theirs = expected.detections[index], answer.detections[index]
        matching = match_detections(ours, theirs, MATCH_IOUS[0])
        if not (matching.lost or matching.new):
            return DetectionPair(name, ours, theirs)
        scores = with_ties(_scores_of(expected, index), _scores_of(answer, index))
        tied = self.candidate.read(expected.heads["loc"][index], scores, self.spec)
        return DetectionPair(name, ours, theirs, tied)

    def _compare_heads(self, chunk: Chunk, expected: Answer, answer: Answer) -> None:
        tolerance = RULES[self.check].heads
        for name, tensor in expected.heads.items():
            diffs = [
                compare_tensors(name, ours, theirs, tolerance, image=image)
                for image, ours, theirs in zip(chunk.names, tensor, answer.heads[name], strict=True)
            ]
            before = [self.heads[name]] if name in self.heads else []
            self.heads[name] = merged_diffs([*before, *diffs])
        if self.diagnosis or not head_reasons(RULES[self.check], tuple(self.heads.values())):
            return
        self.diagnosis = self._diagnosed(chunk, expected, answer)

    def _diagnosed(self, chunk: Chunk, expected: Answer, answer: Answer) -> tuple[Reason, ...]:
        """Try the usual mistakes on the first image; the input's colours by running once more."""
        ours = {name: tensor[0] for name, tensor in expected.heads.items()}
        found = diagnosed_heads(ours, {n: t[0] for n, t in answer.heads.items()}, self.spec)
        found += _scores_diagnosed(answer)
        if found or all(near(ours[n], answer.heads[n][0]) for n in ours):
            return found
        try:
            other = self.candidate.answer(np.ascontiguousarray(chunk.inputs[:1, ::-1]))
        except (RuntimeFailedError, FormatError):
            return found
        if all(near(ours[name], other.heads[name][0]) for name in ours):
            text = "right when red and blue of its input are exchanged: it expects the other order"
            found += (Reason(Code.CHANNELS_REVERSED, text),)
        return found

    def row(self) -> Row:
        """Return what was found over all images."""
        ran = ", ".join(part for part in (self.ran, self.precision) if part)
        if self.broken:
            return Row(self.check, self.title, ran, judged(self.broken), reasons=self.broken)
        rule, heads = RULES[self.check], tuple(self.heads.values())
        diff = compare_detections(self.pairs, self.candidate.cut)
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
    """Return `expected`, each score that `actual` moves by at most `TIE` being moved so."""
    with np.errstate(invalid="ignore"):
        moved: F32 = np.where(np.abs(actual - expected) <= TIE, actual, expected)
    return moved


def _scores_of(answer: Answer, index: int) -> F32:
    """Return the softmaxed scores (P, C) of one image."""
    if "scores" in answer.heads:
        scores: F32 = answer.heads["scores"][index]
        return scores
    return softmax(answer.heads["conf"][index])


def _tie_note(diff: DetectionDiff) -> str:
    if not (diff.tied_lost or diff.tied_new):
        return ""
    return (
        f"{diff.tied_lost} lost and {diff.tied_new} new boxes are ties: the reference's own heads "
        f"give the same when scores move by {TIE:g} or less; counted as borderline"
    )


def _unlike_shapes(expected: Answer, answer: Answer) -> tuple[Reason, ...]:
    found = []
    for name, tensor in expected.heads.items():
        if name not in answer.heads:
            found.append(Reason(Code.OUTPUT_MISSING, f"the output {name} is missing"))
        elif answer.heads[name].shape != tensor.shape:
            text = f"{name} is {answer.heads[name].shape}, not {tensor.shape}"
            found.append(Reason(Code.OUTPUT_SHAPE, text))
    return tuple(found)


def _scores_diagnosed(answer: Answer) -> tuple[Reason, ...]:
    """Return a reason if scores are not probabilities: they do not sum to 1 over the classes."""
    scores = answer.heads.get("scores")
    if scores is None or not np.isfinite(scores).all():
        return ()
    sums = scores.sum(axis=-1)
    worst = float(np.abs(sums - 1).max())
    if worst <= 0.01 and float(scores.min()) >= 0:
        return ()
    text = f"the scores of a prior sum to {float(sums.max()):.4g}, not 1: the softmax is missing"
    return (Reason(Code.SCORES_NOT_SOFTMAX, text),)


TAIL_BLOBS = ("mbox_loc", "mbox_conf", "mbox_conf_softmax", "detection_out")
PRIOR_BLOB = "mbox_priorbox"
Blobs = Mapping[str, F32]


@dataclass(frozen=True, slots=True)
class BodyCandidate:
    """A runtime with the outputs `loc` and `conf`, decoded by `contract`."""

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
        raise FormatError(f"{name} has {numbers.size} numbers, not a multiple of {width}")
    return numbers.reshape(-1, width)
