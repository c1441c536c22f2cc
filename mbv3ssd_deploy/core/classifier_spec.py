"""ClassifierSpec: all that is needed to build and feed a classifier that a detector starts from."""

from __future__ import annotations

from dataclasses import dataclass

from mbv3ssd_deploy.core.spec import ArchSpec, InputSpec
from mbv3ssd_deploy.errors import SpecError


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """A classifier's spec. `arch` is that of detectors with its backbone.

    `class_names` have no background, unlike a detector's.
    """

    name: str
    arch: ArchSpec
    input: InputSpec
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.class_names:
            raise SpecError("a classifier needs at least one class", where="class_names")
        if len(set(self.class_names)) != len(self.class_names):
            raise SpecError("duplicate class names", where="class_names")

    @property
    def num_classes(self) -> int:
        """The number of classes, without a background."""
        return len(self.class_names)
