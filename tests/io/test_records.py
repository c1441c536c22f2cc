"""Dataclasses as JSON: round trips, and every problem named."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from mbv3ssd_deploy.errors import BundleError, SpecError
from mbv3ssd_deploy.io.records import json_from_record, merged_json, record_from_json


class Colour(enum.StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Inner:
    size: float
    count: int


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    colour: Colour
    inner: Inner
    pair: tuple[float, float]
    many: tuple[Inner, ...]
    table: Mapping[str, Inner]
    extra: Mapping[str, Any] | None
    flag: bool


OUTER = Outer(
    "n",
    Colour.RED,
    Inner(1.5, 2),
    (1.0, 2.0),
    (Inner(0.0, 0),),
    {"k": Inner(3.0, 4)},
    {"anything": [1, {"deep": None}]},
    flag=True,
)


def test_what_was_written_is_read():
    assert record_from_json(Outer, json_from_record(OUTER), where="f") == OUTER


def test_none_and_whole_numbers_for_floats_are_fine():
    plain = json_from_record(OUTER) | {"extra": None, "pair": [1, 2]}

    read = record_from_json(Outer, plain, where="f")

    assert read.extra is None
    assert read.pair == (1.0, 2.0)


def test_every_problem_is_reported_at_once_with_its_path():
    plain = json_from_record(OUTER)
    plain["colour"] = "blue"
    plain["inner"] = {"size": "big", "cuont": 1}
    plain["pair"] = [1.0]
    plain["flag"] = 1
    del plain["name"]

    with pytest.raises(BundleError) as caught:
        record_from_json(Outer, plain, where="f.json", error=BundleError)

    for words in (
        "f.json: ",
        "name is missing",
        "colour is 'blue', not one of 'red'",
        "inner.size is 'big', not a float",
        "inner.count is missing",
        "inner.cuont is unknown",
        "pair has 1 values, not 2",
        "flag is 1, not a bool",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("data", [None, [], 3, {"table": 3, "many": 3}])
def test_the_wrong_shape_is_an_error_and_no_crash(data):
    with pytest.raises(SpecError):
        record_from_json(Outer, data, where="f")


def test_true_is_no_number():
    with pytest.raises(SpecError, match=r"count is True, not a int"):
        record_from_json(Inner, {"size": 1.0, "count": True}, where="f")


def test_merging_goes_into_objects_and_replaces_lists():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 2}

    assert merged_json(base, {"a": {"y": [3]}, "c": 4}) == {
        "a": {"x": 1, "y": [3]},
        "b": 2,
        "c": 4,
    }
    assert base["a"]["y"] == [1, 2]
