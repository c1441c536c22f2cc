"""Renaming a checkpoint's keys into our own, with a full account of what happened to each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mbv3ssd_deploy.errors import CheckpointError, first_few

Shape = tuple[int, ...]
KEPT = r"\g<0>"
"""The renaming that changes nothing."""
LEAF = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
"""A pattern of what convolutions, dense layers and BatchNorms call their tensors."""
SHOWN = 6
"""How many names of a long list a message shows."""


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One renaming: `pattern` must match a whole key, `rename` may use its groups.

    `rename=None` drops the key; `why` must then say why nothing is lost. `moved` is set by
    `move_leaves`: the module's name in the file, and ours.
    """

    pattern: str
    rename: str | None
    why: str = ""
    moved: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.rename is None and not self.why:
            raise ValueError(f"rule {self.pattern!r} drops keys without saying why")

    def origin(self, new: str) -> str | None:
        """Return the file's key that this rule would rename to `new`; None if it cannot tell."""
        if self.moved is not None:
            source, target = self.moved
            module, _, leaf = new.rpartition(".")
            return f"{source}.{leaf}" if module == target else None
        if self.rename == KEPT:
            return new
        is_literal = re.escape(self.pattern) == self.pattern
        return self.pattern if self.rename == new and is_literal else None


@dataclass(frozen=True, slots=True)
class ShapeMismatch:
    """A tensor that does not fit where its key leads."""

    key: str
    found: Shape
    wanted: Shape


@dataclass(frozen=True, slots=True)
class KeyReport:
    """Where every key of a checkpoint went, and what the network did not get.

    Attributes:
        renamed: the file's key -> ours.
        dropped: the file's key -> why it is not needed.
        unmatched: keys of the file that no rule knows, or that lead nowhere in the network.
        missing: keys that the file should have, under its own names; ours where no rule knows.
        wrong_shape: tensors that do not fit.
    """

    renamed: Mapping[str, str]
    dropped: Mapping[str, str]
    unmatched: tuple[str, ...]
    missing: tuple[str, ...]
    wrong_shape: tuple[ShapeMismatch, ...]

    @property
    def is_clean(self) -> bool:
        """Whether every key found its place and every place its tensor."""
        return not (self.unmatched or self.missing or self.wrong_shape)

    def problems(self) -> str:
        """Return all that is wrong in one sentence; empty when clean."""
        parts = []
        if self.missing:
            parts.append(f"{counted(self.missing, 'tensor')} missing: {listed(self.missing)}")
        if self.unmatched:
            parts.append(f"{counted(self.unmatched, 'key')} unknown: {listed(self.unmatched)}")
        if self.wrong_shape:
            shown = [
                f"{m.key} is {list(m.found)}, the network wants {list(m.wanted)}"
                for m in self.wrong_shape
            ]
            parts.append(f"{counted(shown, 'shape')} wrong: {listed(shown)}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class KeyMap:
    """An ordered list of rules; the first that matches a key decides."""

    rules: tuple[KeyRule, ...]

    def account(self, shapes: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> KeyReport:
        """Rename the keys of `shapes` and compare the result with what the network wants.

        BatchNorm's batch counters may be missing; inference does not read them.

        Raises:
            CheckpointError: two keys become one.
        """
        renamed: dict[str, str] = {}
        dropped: dict[str, str] = {}
        unmatched: list[str] = []
        compiled = [(re.compile(rule.pattern), rule) for rule in self.rules]
        for key in shapes:
            rule, new = _renamed(key, compiled)
            if rule is not None and new is None:
                dropped[key] = rule.why
            elif new is None or new not in wanted:
                unmatched.append(key)
            else:
                renamed[key] = new
        _refuse_duplicates(renamed)
        filled = set(renamed.values())
        unfilled = [key for key in wanted if key not in filled and not is_counter(key)]
        missing = tuple(self.origin(key) for key in unfilled)
        wrong = tuple(
            ShapeMismatch(key, shapes[key], wanted[new])
            for key, new in renamed.items()
            if not _fits(shapes[key], wanted[new]) and not is_counter(new)
        )
        return KeyReport(renamed, dropped, tuple(unmatched), missing, wrong)

    def origin(self, new: str) -> str:
        """Return what the file calls our key `new`; `new` itself where no rule knows."""
        origins = (rule.origin(new) for rule in self.rules)
        return next((key for key in origins if key is not None), new)


def _fits(found: Shape, wanted: Shape) -> bool:
    """Whether a tensor fits.

    A dense layer's weights are those of a 1x1 convolution; a list of factors, one a channel, may
    come without the other dimensions of a map.
    """
    same = {1: (1, *found, 1, 1), 2: (*found, 1, 1)}
    return wanted in (found, same.get(len(found)))


def _renamed(
    key: str, rules: list[tuple[re.Pattern[str], KeyRule]]
) -> tuple[KeyRule | None, str | None]:
    for pattern, rule in rules:
        match = pattern.fullmatch(key)
        if match is not None:
            return rule, None if rule.rename is None else match.expand(rule.rename)
    return None, None


def move_leaves(source: str, target: str) -> KeyRule:
    """Return the rule that renames `source`.weight, .bias, ... to `target`.weight, .bias, ..."""
    return KeyRule(rf"{re.escape(source)}\.([^.]+)", rf"{target}.\1", moved=(source, target))


def is_counter(key: str) -> bool:
    """Whether `key` is a BatchNorm's count of batches, the one integer of a state_dict."""
    return key.endswith("num_batches_tracked")


def printable(name: object, longest: int = 100) -> str:
    """Return a name from a file as it may be printed: escaped, and cut to `longest` characters."""
    text = name if isinstance(name, str) else type(name).__name__
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:longest])
    return f"{shown}..." if len(text) > longest else shown


def listed(names: Iterable[object], shown: int = SHOWN) -> str:
    """Return the first names, and how many more there are."""
    return first_few([printable(name, 300) for name in names], shown)


def counted(items: Iterable[object], noun: str) -> str:
    """Return "1 tensor is" or "3 tensors are"."""
    count = len(list(items))
    return f"1 {noun} is" if count == 1 else f"{count} {noun}s are"


def _refuse_duplicates(renamed: Mapping[str, str]) -> None:
    sources: dict[str, list[str]] = {}
    for key, new in renamed.items():
        sources.setdefault(new, []).append(key)
    clashes = [
        f"{' and '.join(keys)} both become {new}" for new, keys in sources.items() if len(keys) > 1
    ]
    if clashes:
        raise CheckpointError(listed(clashes))
