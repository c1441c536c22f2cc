"""DetectorSpec as JSON, both ways; `core/records.py` says how a dataclass looks in JSON."""

from __future__ import annotations

from mbv3ssd_deploy.core.spec import DetectorSpec
from mbv3ssd_deploy.io.records import Json, json_from_record, merged_json, record_from_json

__all__ = ["Json", "json_from_spec", "merged_json", "spec_from_json"]


def json_from_spec(spec: DetectorSpec) -> Json:
    """Return `spec` as a dict of plain JSON values, in the order of its fields."""
    return json_from_record(spec)


def spec_from_json(data: object, *, where: str = "spec") -> DetectorSpec:
    """Return the spec that `json_from_spec` wrote.

    Raises:
        SpecError: with every key that is missing, unknown or of the wrong type.
    """
    return record_from_json(DetectorSpec, data, where=where)
