"""The record of a classifier: what it refuses, and that JSON keeps it."""

import pytest
from builders import tiny_spec

from mbv3ssd_deploy.core.spec import ClassifierSpec
from mbv3ssd_deploy.errors import SpecError
from mbv3ssd_deploy.io.records import json_from_record, record_from_json


def spec(names=("cat", "dog")):
    detector = tiny_spec()
    return ClassifierSpec("tiny", detector.arch, detector.input, names)


def test_json_keeps_it():
    found = record_from_json(ClassifierSpec, json_from_record(spec()), where="here")

    assert found == spec()
    assert found.num_classes == 2


@pytest.mark.parametrize(
    ("names", "said"), [((), "at least one"), (("cat", "cat"), "duplicate class names")]
)
def test_classes_are_named_once_each(names, said):
    with pytest.raises(SpecError, match=said):
        spec(names)
