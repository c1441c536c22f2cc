"""ClassifierSpec: everything one must know to build and feed a classifier that starts a detector.

A detector's training begins well from a backbone that has learned to classify. Such a network
travels with this record, as a detector does with its `DetectorSpec`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mbv3ssd_deploy.core.spec import ArchSpec, InputSpec
from mbv3ssd_deploy.errors import SpecError


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """What a classifier is. `arch` is that of the detectors that its backbone feeds.

    `class_names` hold no background: an image of nothing is no class here.
    """

    name: str
    arch: ArchSpec
    input: InputSpec
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.class_names:
            raise SpecError("a classifier needs at least one class", where="class_names")
        if len(set(self.class_names)) != len(self.class_names):
            raise SpecError("a class name stands twice", where="class_names")

    @property
    def num_classes(self) -> int:
        """How many classes there are, no background among them."""
        return len(self.class_names)
