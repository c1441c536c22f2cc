"""One runtime held against the reference, image after image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mbv3ssd_deploy.core.arrays import F32
from mbv3ssd_deploy.core.detections import Detections, softmax
from mbv3ssd_deploy.core.matching import match_detections
from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.errors import FormatError, RuntimeFailedError
from mbv3ssd_deploy.verification.detections import (
    MATCH_IOUS,
    TIE,
    Cut,
    DetectionDiff,
    DetectionPair,
    compare_detections,
)
from mbv3ssd_deploy.verification.diagnosis import diagnosed_heads, near
from mbv3ssd_deploy.verification.reasons import Code, Reason
from mbv3ssd_deploy.verification.reference import Chunk
from mbv3ssd_deploy.verification.report import Row, judged
from mbv3ssd_deploy.verification.rules import RULES, Check, box_reasons, head_reasons
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
    """A deployed runtime, and what it is expected to say."""

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
            spec: gives the priors and the coder, and the family's rules where those count.
        """


@dataclass(slots=True)
class RuntimeCheck:
    """Gathers how one runtime differs from the reference, and gives its row."""

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

    def see(self, chunk: Chunk) -> None:
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
            text = "right when red and blue of its input are exchanged: it wants the other order"
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
        f"{diff.tied_lost} boxes went and {diff.tied_new} came by a tie: the reference's own heads "
        f"give the same when scores move by {TIE:g} or less; counted as flicker"
    )


def _unlike_shapes(expected: Answer, answer: Answer) -> tuple[Reason, ...]:
    found = []
    for name, tensor in expected.heads.items():
        if name not in answer.heads:
            found.append(Reason(Code.OUTPUT_MISSING, f"there is no output {name}"))
        elif answer.heads[name].shape != tensor.shape:
            text = f"{name} is {answer.heads[name].shape}, not {tensor.shape}"
            found.append(Reason(Code.OUTPUT_SHAPE, text))
    return tuple(found)


def _scores_diagnosed(answer: Answer) -> tuple[Reason, ...]:
    """Tell scores that are no probabilities: they do not sum to 1 over the classes."""
    scores = answer.heads.get("scores")
    if scores is None or not np.isfinite(scores).all():
        return ()
    sums = scores.sum(axis=-1)
    worst = float(np.abs(sums - 1).max())
    if worst <= 0.01 and float(scores.min()) >= 0:
        return ()
    text = f"the scores of a prior sum to {float(sums.max()):.4g}, not 1: there is no softmax"
    return (Reason(Code.SCORES_NOT_SOFTMAX, text),)
