"""Renaming a checkpoint's keys into our own, with a full account of what happened to each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mbv3ssd_deploy.errors import CheckpointError

Shape = tuple[int, ...]
SHOWN = 6
"""How many names of a long list a message shows."""


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One renaming: `pattern` must match a whole key, `rename` may use its groups.

    `rename=None` drops the key; `why` must then say why nothing is lost.
    """

    pattern: str
    rename: str | None
    why: str = ""

    def __post_init__(self) -> None:
        if self.rename is None and not self.why:
            raise ValueError(f"rule {self.pattern!r} drops keys without saying why")


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
        missing: our keys that nothing in the file fills.
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
        """Rename the keys of `shapes` and hold the result against what the network wants.

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
        missing = tuple(k for k in wanted if k not in filled and not is_counter(k))
        wrong = tuple(
            ShapeMismatch(key, shapes[key], wanted[new])
            for key, new in renamed.items()
            if not _fits(shapes[key], wanted[new]) and not is_counter(new)
        )
        return KeyReport(renamed, dropped, tuple(unmatched), missing, wrong)


def _fits(found: Shape, wanted: Shape) -> bool:
    """Whether a tensor fits: a dense layer's weights are those of a 1x1 convolution."""
    return wanted in (found, (*found, 1, 1)) if len(found) == 2 else found == wanted


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
    return KeyRule(rf"{re.escape(source)}\.([^.]+)", rf"{target}.\1")


def is_counter(key: str) -> bool:
    """Whether `key` is a BatchNorm's count of batches, the one integer of a state_dict."""
    return key.endswith("num_batches_tracked")


def listed(names: Iterable[str], shown: int = SHOWN) -> str:
    """Return the first names, and how many more there are."""
    names = list(names)
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


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
