"""ncnn's detection_out, through the C API."""

import numpy as np
import pytest
from cpp_library import LibraryError, Status
from reference_specs import qfgaohao_spec

from mbv3ssd_deploy.device.contract import render_contract

ROWS = np.float32(
    [[3, 0.9, 0.1, 0.2, 0.3, 0.4], [20, 0.5, -0.1, 0.5, 1.2, 0.75], [1, 0.25, 0, 0, 1, 1]]
)


@pytest.fixture
def detector(library):
    return library.open(render_contract(qfgaohao_spec()))


def test_rows_become_detections_in_pixels(detector):
    found = detector.read_detection_out(ROWS, size=(200, 100))

    assert found["label"].tolist() == [3, 20, 1]
    assert np.array_equal(found["score"], ROWS[:, 1])
    assert np.array_equal(found["box"], ROWS[:, 2:] * np.float32([200, 100, 200, 100]))
    assert (found["prior"] == -1).all()


def test_boxes_are_cut_at_the_edges_on_demand(detector):
    detector.call("set_clip", 1)

    found = detector.read_detection_out(ROWS, size=(200, 100))

    assert found["box"][1].tolist() == [0, 50, 200, 75]


def test_an_empty_blob_is_no_detection(detector):
    assert len(detector.read_detection_out(np.empty((0, 6), np.float32))) == 0


def test_rows_that_are_not_finite_are_dropped(detector):
    rows = np.repeat(ROWS[:1], 4, axis=0)
    rows[0, 1], rows[2, 4], rows[3, 0] = np.nan, np.inf, np.nan

    assert len(detector.read_detection_out(rows)) == 1


@pytest.mark.parametrize("label", [0, 21, -1, 1.5, 1e30])
def test_a_label_of_another_model_is_refused(detector, label):
    rows = ROWS.copy()
    rows[1, 0] = label

    with pytest.raises(LibraryError, match="row 1 has the label") as caught:
        detector.read_detection_out(rows)

    assert caught.value.status is Status.BAD_ARGUMENT
