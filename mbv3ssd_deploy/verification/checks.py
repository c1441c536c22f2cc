"""What every check can do, and the two that run no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mbv3ssd_deploy.bundle.bundle import BODY, MANIFEST
from mbv3ssd_deploy.verification.reasons import Code, Reason
from mbv3ssd_deploy.verification.reference import Chunk
from mbv3ssd_deploy.verification.report import Row, judged
from mbv3ssd_deploy.verification.rules import Check
from mbv3ssd_deploy.verification.tensors import TensorDiff, Tolerance, compare_tensors, merged_diffs


class Checking(Protocol):
    """Something that looks at every chunk of images and then gives its row."""

    def see(self, chunk: Chunk) -> None:
        """Look at a few more images."""

    def row(self) -> Row:
        """Return what was found."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A check whose row no image can change."""

    found: Row

    def see(self, chunk: Chunk) -> None:
        """Do nothing."""

    def row(self) -> Row:
        """Return the row."""
        return self.found


@dataclass(slots=True)
class ContractCheck:
    """Whether the bundle's files describe the checkpoint's detector, and feed it the same."""

    found: tuple[Reason, ...]
    diff: TensorDiff | None = None
    resized: tuple[Reason, ...] = ()

    def see(self, chunk: Chunk) -> None:
        """Compare the network inputs that both specs make of the same images."""
        if chunk.own_inputs.shape != chunk.inputs.shape:
            ours, theirs = chunk.inputs.shape[2:], chunk.own_inputs.shape[2:]
            text = f"the contract makes inputs of {ours}, the checkpoint's of {theirs}"
            self.resized = (Reason(Code.INPUT_TENSOR, text),)
            return
        same = Tolerance(0.0, 0.0)
        diff = [
            compare_tensors("input", own, theirs, same, image=name)
            for name, own, theirs in zip(chunk.names, chunk.own_inputs, chunk.inputs, strict=True)
        ]
        self.diff = merged_diffs([*diff, *([self.diff] if self.diff else [])])

    def row(self) -> Row:
        """Return the fields that differ, and whether the input tensors do."""
        reasons = (*self.found, *self.resized)
        if self.diff is not None and not self.diff.passed:
            reasons += (Reason(Code.INPUT_TENSOR, self.diff.sentence()),)
        note = "" if reasons else "the same detector, and the same input tensors"
        return Row(
            Check.CONTRACT,
            "contract",
            f"{MANIFEST}, {BODY}",
            judged(reasons),
            note=note,
            reasons=reasons,
            heads=() if self.diff is None else (self.diff,),
        )
