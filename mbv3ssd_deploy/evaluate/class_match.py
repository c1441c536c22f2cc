"""Which class of the data a class of the model is: by name, in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mbv3ssd_deploy.core.arrays import I64
from mbv3ssd_deploy.core.detections import Detections
from mbv3ssd_deploy.data.objects import class_key
from mbv3ssd_deploy.errors import DatasetError

_LISTED = 8


@dataclass(frozen=True, slots=True, eq=False)
class ClassMatch:
    """The model's classes in terms of the data's.

    Attributes:
        labels: (C,) the data's label of each label of the model; 0 where the data has no such
            class, and for the background.
        respelled: (model's name, data's name) of classes that differ by case, blanks, - or _ only.
        unknown: names of the data that the model does not know.
        unused: names of the model that the data does not have.
    """

    labels: I64
    respelled: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]
    unused: tuple[str, ...]

    def notices(self) -> tuple[str, ...]:
        """Return what a user should know, in sentences."""
        said = []
        if self.unknown:
            said.append(
                f"the model does not know {listed(self.unknown)}: such objects count as missed"
            )
        if self.unused:
            said.append(
                f"the data has no {listed(self.unused)}: what the model finds of it does not count"
            )
        if self.respelled:
            pairs = [f"{ours!r} is {theirs!r}" for ours, theirs in self.respelled]
            said.append(f"spelled in two ways: {', '.join(pairs)}")
        return tuple(said)

    def of_data(self, detections: Detections) -> Detections:
        """Return the detections with the data's labels, those of its classes only."""
        labels = self.labels[detections.labels]
        kept = labels > 0
        return Detections(detections.boxes[kept], detections.scores[kept], labels[kept])


def match_classes(model: Sequence[str], data: Sequence[str]) -> ClassMatch:
    """Return which class of `data` each class of `model` is; both begin with the background.

    Names are equal as they are written, or failing that without case, blanks, hyphens and
    underscores.

    Raises:
        DatasetError: not one class of the data is one of the model's.
    """
    exact = {name: label for label, name in enumerate(data) if label}
    loose = {class_key(name): label for name, label in exact.items() if name not in model[1:]}
    labels = np.zeros(len(model), np.int64)
    respelled = []
    for index, name in enumerate(model[1:], 1):
        label = exact.get(name, 0)
        if not label:
            label = loose.get(class_key(name), 0)
            respelled += [(name, data[label])] if label else []
        labels[index] = label
    taken = set(labels.tolist())
    unknown = tuple(name for name, label in exact.items() if label not in taken)
    if len(unknown) == len(exact):
        raise DatasetError(
            f"no class of the data is one of the model's: the data has {listed(data[1:])}; "
            f"the model has {listed(model[1:])}",
            hint="where the model's names are made up, export its checkpoint again with "
            "`--labels FILE`, the names one a line in the order of training",
        )
    unused = tuple(model[i] for i in range(1, len(model)) if not labels[i])
    return ClassMatch(labels, tuple(respelled), unknown, unused)


def listed(names: Sequence[str]) -> str:
    """Return the names in a row, quoted; the first few of many."""
    shown = ", ".join(repr(name) for name in names[:_LISTED])
    more = len(names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown
