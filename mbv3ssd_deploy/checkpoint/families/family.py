"""What a family of checkpoints is: how to recognise it, describe it, and rename its keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from mbv3ssd_deploy.checkpoint.families.heads import HeadLevel
from mbv3ssd_deploy.checkpoint.keymap import KeyMap, Shape
from mbv3ssd_deploy.checkpoint.state_dict import RawCheckpoint
from mbv3ssd_deploy.core.spec import DetectorSpec


@dataclass(frozen=True, slots=True)
class Signature:
    """What the keys of a file must be like.

    Attributes:
        present: keys that must all be there.
        absent: keys that must not.
        starts: beginnings that at least one key each must have.
        ranks: keys whose tensors must have that many dimensions.
        like: a pattern that the family's keys match; measures nearness, never decides.
    """

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    ranks: tuple[tuple[str, int], ...] = ()
    like: str = ""

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether a file with tensors of these shapes has this signature."""
        return (
            all(key in shapes for key in self.present)
            and not any(key in shapes for key in self.absent)
            and all(any(key.startswith(start) for key in shapes) for start in self.starts)
            and all(len(shapes.get(key, ())) == rank for key, rank in self.ranks)
        )

    @property
    def telling(self) -> tuple[str, ...]:
        """The keys that must be there, for people: a beginning ends in `*`."""
        return (*self.present, *(f"{start}*" for start in self.starts))

    def missing(self, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
        """Return those of `telling` that are not among `shapes`."""
        begun = (any(key.startswith(start) for key in shapes) for start in self.starts)
        found = (*(key in shapes for key in self.present), *begun)
        return tuple(key for key, there in zip(self.telling, found, strict=True) if not there)

    def unlike(self, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
        """Return the keys that no file of the family has."""
        return tuple(key for key in shapes if not re.fullmatch(self.like, key))


@dataclass(frozen=True, slots=True)
class SpecRequest:
    """What a user asked for that a family must know while it makes the spec.

    `priors_given`: the user brings priors of their own, so that fixed tables do not bind.
    """

    image_size: tuple[int, int] | None
    priors_given: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """The spec that a family reads from a file, and why.

    Attributes:
        spec: before any of the user's changes.
        heads: the predictors of the file, level by level.
        evidence: sentences for people: which keys and shapes decided.
        provenance: field of the spec -> "file", "head channels", "weight shapes", "family preset".
        names_given: whether the class names are real, not class_1, class_2, ...
        notices: what a user should know, and can do something about.
    """

    spec: DetectorSpec
    heads: tuple[HeadLevel, ...]
    evidence: tuple[str, ...]
    provenance: Mapping[str, str]
    names_given: bool
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """One family that this version loads.

    Attributes:
        name: what `--family` calls it.
        title: for people.
        signature: how its files are told from others.
        draft: makes the spec from a file. Raises CheckpointError or SpecError.
        keymap: the renaming of its keys for that spec.
        carries_spec: its files are told by the spec in them, not by their keys.
        tell: for a family whose keys are another's too: whether the values of a file are this
            family's, and the sentence that says what told it.
        arranged: for a family whose tensors hold our numbers in another order: returns the tensor
            of a key of the file in our order.
    """

    name: str
    title: str
    signature: Signature
    draft: Callable[[RawCheckpoint, SpecRequest], Draft]
    keymap: Callable[[DetectorSpec], KeyMap]
    carries_spec: bool = False
    tell: Callable[[RawCheckpoint], tuple[bool, str]] | None = None
    arranged: Callable[[str, torch.Tensor, DetectorSpec], torch.Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Stranger:
    """A kind of file that is recognised only to be refused by name.

    `is_rest`: what is left of a code base when its known networks are told; half a file of a
    family, or a changed one, looks the same.
    """

    title: str
    signature: Signature
    hint: str = ""
    is_rest: bool = False
