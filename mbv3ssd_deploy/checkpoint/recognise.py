"""Which family a file is of; or what it is instead."""

from __future__ import annotations

from collections.abc import Mapping

from mbv3ssd_deploy.checkpoint.families.family import Family, Signature, UnsupportedModel
from mbv3ssd_deploy.checkpoint.families.table import FAMILIES
from mbv3ssd_deploy.checkpoint.families.unsupported import UNSUPPORTED
from mbv3ssd_deploy.checkpoint.keymap import Shape, counted, listed
from mbv3ssd_deploy.checkpoint.state_dict import MIXED_PREFIX, RawCheckpoint, partial_prefix
from mbv3ssd_deploy.errors import CheckpointError

LOADABLE = ", ".join(family.name for family in FAMILIES)
_LOADS = f"this version loads {LOADABLE}"


def recognise(
    contents: RawCheckpoint, asked_for: str | None = None
) -> tuple[Family, tuple[str, ...]]:
    """Return the family of a file, and the evidence for it.

    Raises:
        CheckpointError: it is of no family that this version loads, or not of the one asked for.
    """
    if asked_for is not None:
        return _asked_for(contents, asked_for)
    if contents.spec_json is not None:
        return next((family, ()) for family in FAMILIES if family.carries_spec)
    fitting = fitting_families(contents)
    if not fitting:
        raise _refusal(contents)
    decided = fitting if len(fitting) == 1 else [f for f in fitting if _is_decided(f, contents)]
    if len(decided) != 1 or _are_mixed(fitting):
        raise _undecided(fitting, contents)
    return decided[0], _evidence(decided[0], contents)


def fitting_families(contents: RawCheckpoint) -> list[Family]:
    """Return the families whose signature the keys of a file have, whatever its values are."""
    shapes = contents.shapes
    return [f for f in FAMILIES if not f.carries_spec and f.signature.fits(shapes)]


def _are_mixed(fitting: list[Family]) -> bool:
    return len({family.signature for family in fitting}) > 1


def _is_decided(family: Family, contents: RawCheckpoint) -> bool:
    return family.decide is not None and family.decide(contents)[0]


def _evidence(family: Family, contents: RawCheckpoint) -> tuple[str, ...]:
    keys = f"has {listed(family.signature.required)}: {family.title}"
    return (keys,) if family.decide is None else (keys, family.decide(contents)[1])


def _undecided(fitting: list[Family], contents: RawCheckpoint) -> CheckpointError:
    names = [family.name for family in fitting]
    if _are_mixed(fitting):
        first = {family.signature: family.name for family in reversed(fitting)}
        return CheckpointError(
            f"the keys of {' and of '.join(reversed(first.values()))} are mixed in one file: no "
            "network has both",
            hint="save the state_dict of one network by itself",
        )
    reasons = {family.decide(contents)[1] for family in fitting if family.decide is not None}
    return CheckpointError(
        f"the keys are those of {' and of '.join(names)}, and nothing decides between them"
        + "".join(f"; {reason}" for reason in sorted(reasons)),
        hint=" or ".join(f"--family {name}" for name in names),
    )


def _asked_for(contents: RawCheckpoint, name: str) -> tuple[Family, tuple[str, ...]]:
    family = next((family for family in FAMILIES if family.name == name), None)
    if family is None:
        raise CheckpointError(
            f"there is no family {name!r}; this version loads {LOADABLE}",
            hint="leave --family out, and the keys of the file decide it",
        )
    if not family.signature.fits(contents.shapes):
        missing = family.signature.missing(contents.shapes)
        lacking = f"{counted(missing, 'key')} missing: {listed(missing)}"
        raise CheckpointError(
            f"this is not a {name} checkpoint: {lacking if missing else 'its keys differ'}",
            hint="leave --family out to see what the file looks like",
        )
    evidence = _evidence(family, contents) if family.signature.required else ()
    return family, (f"--family {name}", *evidence) if evidence else ()


def _refusal(contents: RawCheckpoint) -> CheckpointError:
    shapes = contents.shapes
    model = next((s for s in UNSUPPORTED if s.signature.fits(shapes)), None)
    nearest = _nearest(shapes)
    mixed = partial_prefix(shapes)
    reasons = (
        mixed,
        f"it looks like {model.title}" if model else "",
        _nearness_in_words(nearest.signature, nearest.name, shapes),
    )
    return CheckpointError(
        f"this is not a loadable MobileNetV3-SSD: {'; '.join(filter(None, reasons))}",
        hint=MIXED_PREFIX if mixed else _what_to_do(model, nearest, shapes),
    )


def _what_to_do(
    model: UnsupportedModel | None, nearest: Family, shapes: Mapping[str, Shape]
) -> str:
    if model is not None and model.hint and not model.is_rest:
        return model.hint
    if not nearest.signature.unlike(shapes):
        return f"part of a {nearest.name} file? Every key is like its own: save the whole network"
    what = model.hint if model is not None and model.hint else _LOADS
    return f"{what}; docs/adding.md shows how to write a family file"


def _nearest(shapes: Mapping[str, Shape]) -> Family:
    candidates = [family for family in FAMILIES if not family.carries_spec]

    def nearness(family: Family) -> tuple[float, float]:
        signature = family.signature
        lacking = len(signature.missing(shapes)) / len(signature.required)
        return 1 - len(signature.unlike(shapes)) / len(shapes), 1 - lacking

    return max(candidates, key=nearness)


def _nearness_in_words(signature: Signature, name: str, shapes: Mapping[str, Shape]) -> str:
    missing, unknown = signature.missing(shapes), signature.unlike(shapes)
    text = (
        f"the nearest family is {name}: {len(signature.required) - len(missing)} of its "
        f"{len(signature.required)} required keys are here, and {len(shapes) - len(unknown)} of "
        f"the file's {len(shapes)} keys are like its own"
    )
    text += f"; first missing {listed(missing, 3)}" if missing else ""
    return text + (f"; first unknown {listed(unknown, 3)}" if unknown else "")
