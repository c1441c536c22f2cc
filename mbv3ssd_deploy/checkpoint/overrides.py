"""Apply the user's options to the spec that a family drafted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mbv3ssd_deploy.checkpoint.families.family import BACKGROUND, Draft, check_boxes
from mbv3ssd_deploy.checkpoint.options import LoadOptions
from mbv3ssd_deploy.core.spec import (
    DetectorSpec,
    InputSpec,
    json_from_spec,
    merged_json,
    spec_from_json,
)
from mbv3ssd_deploy.errors import SpecError

_NAMES = "every class needs a name of its own"


@dataclass(frozen=True, slots=True)
class FinalSpec:
    """The final spec, where its fields come from, and what a user should know."""

    spec: DetectorSpec
    provenance: Mapping[str, str]
    notices: tuple[str, ...]


def apply_overrides(draft: Draft, options: LoadOptions) -> FinalSpec:
    """Return `draft`'s spec with the changes of `options`: first `spec_changes`, then the flags.

    Raises:
        SpecError: changes that fit no field, or class counts that the heads contradict.
    """
    spec = draft.spec
    provenance = {**draft.provenance, "priors.boxes_per_cell": "head channels"}
    classes = draft.spec.num_classes
    if options.num_classes is not None and options.num_classes != classes:
        raise SpecError(
            f"the heads predict {classes} classes with the background, not {options.num_classes}",
            hint=f"the background counts too: --num-classes {classes}, or leave it out",
        )
    if options.spec_changes:
        merged = merged_json(json_from_spec(spec), options.spec_changes)
        spec = spec_from_json(merged, where=options.spec_from or "the changed spec")
        provenance |= dict.fromkeys(_given(options.spec_changes, merged), "--spec")
        if spec.family != draft.spec.family:
            raise SpecError(
                f"the file is of the family {draft.spec.family}, which a spec cannot change to "
                f"{spec.family}",
                where=options.spec_from,
                hint="leave `family` out of the spec; --family reads the keys as another's",
            )
    if options.class_names is not None:
        names = named_classes(options.class_names, classes, where=options.class_names_from)
        spec = dataclasses.replace(spec, class_names=names)
        provenance["class_names"] = "flag"
    if spec.num_classes != classes:
        raise SpecError(
            f"the heads predict {classes} classes with the background, but {spec.num_classes} "
            "are named",
            where=options.spec_from,
            hint="name the background first, then every class",
        )
    _check_priors(draft, spec, options)
    changed = _with_input_flags(spec.input, options)
    provenance |= {f"input.{name}": "flag" for name in _changed_fields(spec.input, changed)}
    if options.image_size is not None:
        provenance |= {"input.height": "flag", "input.width": "flag"}
    spec = dataclasses.replace(spec, input=changed)
    named = draft.names_given or provenance["class_names"] in {"flag", "--spec"}
    return FinalSpec(spec, provenance, () if named else (_numbered_notice(spec),))


def _given(changes: Mapping[str, object], whole: Mapping[str, object]) -> Iterator[str]:
    """Yield the parts of a spec that `changes` give whole, and the fields of the others."""
    for part, change in changes.items():
        full = whole[part]
        if (
            isinstance(change, Mapping)
            and isinstance(full, Mapping)
            and change.keys() != full.keys()
        ):
            yield from (f"{part}.{field}" for field in change)
        else:
            yield part


def _check_priors(draft: Draft, spec: DetectorSpec, options: LoadOptions) -> None:
    try:
        check_boxes(draft.heads, spec.priors)
    except SpecError as error:
        if spec.priors == draft.spec.priors:
            raise
        where, hint = (
            options.spec_from,
            "a level has 1 box, or 2 with max_size, and 1 more for each ratio",
        )
        raise SpecError(error.message, where=where, hint=hint) from error


def named_classes(names: Sequence[str], num_classes: int, *, where: str = "") -> tuple[str, ...]:
    """Return `names` with the background first, for `num_classes` classes; `where` they stand.

    Raises:
        SpecError: another number of names, or blank or duplicate names.
    """
    stripped = [name.strip() for name in names]
    blank = [str(place) for place, name in enumerate(stripped, start=1) if not name]
    if blank:
        raise SpecError(
            f"class names {', '.join(blank)} of {len(names)} are blank", where=where, hint=_NAMES
        )
    if len(stripped) == num_classes - 1:
        stripped.insert(0, BACKGROUND)
    if len(stripped) != num_classes:
        raise SpecError(
            f"{len(names)} class names for a network of {num_classes} classes with the background",
            where=where,
            hint=f"give {num_classes - 1} names, or {num_classes} with the background first",
        )
    twice = sorted({name for name in stripped if stripped.count(name) > 1})
    if twice:
        raise SpecError(f"duplicate class names: {', '.join(twice)}", where=where, hint=_NAMES)
    return tuple(stripped)


def _with_input_flags(spec: InputSpec, options: LoadOptions) -> InputSpec:
    mean, std = spec.mean, spec.std
    order = options.channel_order or spec.channel_order
    if order is not spec.channel_order:  # the family's numbers belong to colours, not to places
        mean, std = mean[::-1], std[::-1]
    return dataclasses.replace(
        spec, channel_order=order, mean=options.mean or mean, std=options.std or std
    )


def _changed_fields(before: InputSpec, after: InputSpec) -> list[str]:
    fields = (field.name for field in dataclasses.fields(InputSpec))
    return [name for name in fields if getattr(before, name) != getattr(after, name)]


def _numbered_notice(spec: DetectorSpec) -> str:
    last = spec.class_names[-1]
    return f"the classes are called class_1 to {last} until --labels names them"
