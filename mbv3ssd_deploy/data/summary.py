"""What was wrong with a data set, in a few lines: each kind counted, its first case named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mbv3ssd_deploy.data.dataset import DatasetProblem

PROBLEM_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "split-made": "no split is named, so one was made",
        "missing-split": "not every folder has this split",
        "missing-image": "annotations without an image, left out",
        "missing-annotation": "images without an annotation, left out",
        "no-label-file": "images without a label file, taken as images without objects",
        "broken-annotation": "annotations that cannot be read, left out",
        "broken-image": "images that cannot be read, left out",
        "duplicate-image": "images that are there twice, kept once",
        "size-mismatch": "annotations drawn for an image of another size, left out",
        "category-holes": "category ids with holes, numbered anew",
        "empty-class": "folders without an image, taken for no class",
        "broken-object": "objects that cannot be read, left out",
        "blank-in-class": "class names with blanks around them, taken off",
        "unknown-class": "objects of a class that is unknown or not asked for, left out",
        "not-a-number": "boxes that are no numbers, left out",
        "inverted-box": "inverted boxes, left out",
        "empty-box": "boxes of zero area, left out",
        "box-outside": "boxes outside their image, left out",
        "box-cut": "boxes partly outside their image, cut at its edge",
    }
)
"""What each `DatasetProblem.kind` means; a summary keeps this order."""

_NOTICES = frozenset({"split-made", "missing-split", "category-holes"})
"""Nothing is lost by these; they are said without a count."""


def summary_of_problems(problems: Sequence[DatasetProblem]) -> tuple[str, ...]:
    """Return a line per kind: how many, what it means, and the first case with its place."""
    counts = Counter(problem.kind for problem in problems)
    first: dict[str, DatasetProblem] = {}
    for problem in problems:
        first.setdefault(problem.kind, problem)
    order = [kind for kind in PROBLEM_KINDS if kind in counts]
    order += sorted(set(counts) - set(PROBLEM_KINDS))
    return tuple(_line(kind, counts[kind], first[kind]) for kind in order)


def summary_of_training(
    train: Sequence[DatasetProblem], val: Sequence[DatasetProblem]
) -> tuple[str, ...]:
    """Return the lines of two parts, each saying of which it is, once where it is of both."""
    of_train, of_val = summary_of_problems(train), summary_of_problems(val)
    both = [line for line in of_train if line in of_val]
    return (
        *(f"training and validation data: {line}" for line in both),
        *(f"training data: {line}" for line in of_train if line not in both),
        *(f"validation data: {line}" for line in of_val if line not in both),
        *remark_on_more((*train, *val)),
    )


def remark_on_more(problems: Sequence[DatasetProblem]) -> tuple[str, ...]:
    """Return how to see what a summary does not name; nothing where it names all."""
    hidden = len(set(problems)) - len({problem.kind for problem in problems})
    return ("-v names every case, with its file",) if hidden else ()


def every_problem(problems: Sequence[DatasetProblem]) -> tuple[str, ...]:
    """Return a line for each problem, once."""
    return tuple(dict.fromkeys(f"{problem.place}: {problem.reason}" for problem in problems))


def _line(kind: str, count: int, first: DatasetProblem) -> str:
    meaning = PROBLEM_KINDS.get(kind, kind)
    if count == 1 and kind in _NOTICES:
        return f"{meaning}; {first.place}: {first.reason}"
    named = "first: " if count > 1 else ""
    return f"{count} x {meaning}; {named}{first.place}: {first.reason}"
