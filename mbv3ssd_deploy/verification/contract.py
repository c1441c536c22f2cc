"""Compare what the deployed files declare with the checkpoint.

The reference sees an image through the checkpoint's own spec; every deployed runtime sees it
through the bundle's. Where the two disagree, this names the field in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.io.records import json_from_record
from mbv3ssd_deploy.verification.rules import Code, Reason

# The first entry whose path a field equals, or is below, decides.
_FIELDS: tuple[tuple[str, Code, str], ...] = (
    ("input.height", Code.INPUT_SIZE, "input height"),
    ("input.width", Code.INPUT_SIZE, "input width"),
    ("input.channel_order", Code.CHANNEL_ORDER, "channel order"),
    ("input.mean", Code.NORMALISATION, "mean"),
    ("input.std", Code.NORMALISATION, "standard deviation"),
    ("input.resize", Code.RESIZE_RULE, "resize rule"),
    ("class_names", Code.CLASS_NAMES, "class name"),
    ("priors.clip", Code.PRIOR_SPEC, "clip rule of the priors"),
    ("priors", Code.PRIOR_SPEC, ""),
    ("coder", Code.BOX_CODER, ""),
    ("decode", Code.DECODE_RULES, ""),
    ("", Code.SPEC, ""),
)


def compare_specs(
    checkpoint: DetectorSpec, deployed: DetectorSpec, *, where: str
) -> tuple[Reason, ...]:
    """Return a reason for each field of the spec in `where` that differs from the checkpoint's."""
    ours, theirs = json_from_record(deployed), json_from_record(checkpoint)
    return tuple(
        _reason(path, actual, expected, where)
        for path, actual, expected in _differences(ours, theirs, "")
    )


def _differences(actual: Any, expected: Any, path: str) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401 -- any JSON value
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        for key in dict.fromkeys([*expected, *actual]):
            below = f"{path}.{key}" if path else key
            yield from _differences(actual.get(key), expected.get(key), below)
    elif _are_tables(actual, expected) and len(actual) == len(expected):
        for index, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
            yield from _differences(ours, theirs, f"{path}[{index}]")
    elif actual != expected:
        yield path, actual, expected


def _are_tables(actual: Any, expected: Any) -> bool:  # noqa: ANN401 -- any JSON value
    """Return whether a list is compared entry by entry; a list of numbers is one value."""
    lists = isinstance(actual, list) and isinstance(expected, list)
    return lists and not any(isinstance(item, int | float) for item in (*actual, *expected))


def _reason(path: str, actual: Any, expected: Any, where: str) -> Reason:  # noqa: ANN401
    code, words = next(
        (code, words or path.replace("_", " "))
        for prefix, code, words in _FIELDS
        if path == prefix or not prefix or path.startswith((f"{prefix}.", f"{prefix}["))
    )
    if path.endswith("]") and words not in path:
        words += path[path.rindex("[") :]
    text = f"{words} is {_text(actual)} in {where}, {_text(expected)} for this checkpoint"
    return Reason(code, text)


def _text(value: Any) -> str:  # noqa: ANN401 -- any JSON value
    if value is None:
        return "absent"
    if isinstance(value, list):
        return "(" + ", ".join(map(_text, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def compare_detection_output(
    recorded: Mapping[str, float], written: Mapping[str, float]
) -> tuple[Reason, ...]:
    """Return a reason for each number of the DetectionOutput layer that was not recorded so.

    Args:
        recorded: the values in detector.json, by the layer's parameter name.
        written: the values in the .param file, by the same names.
    """
    return tuple(
        Reason(
            Code.THRESHOLDS,
            f"{name.replace('_', ' ')} is {_text(written.get(name))} in the .param file, "
            f"{_text(value)} in detector.json",
        )
        for name, value in recorded.items()
        # the .param file keeps float32
        if name not in written or abs(written[name] - value) > 1e-6 * max(1.0, abs(value))
    )
