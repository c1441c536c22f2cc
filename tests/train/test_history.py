import math
import sys
import types

import pytest

from mbv3ssd_deploy.train.history import (
    DETECTOR_CURVES,
    BackboneEpoch,
    EpochRecord,
    best_epoch,
    board_if_installed,
    render_table,
    write_history,
)

HISTORY = (
    EpochRecord(1, 10, 2.5, 0.01, 2.0, 3.0, 14.5),
    EpochRecord(2, 20, 2.25, 0.005, 1.0, 2.0, 14.5, 0.75),
    EpochRecord(3, 30, 2.0, 0.001, 0.5, 1.5, 14.25, 0.75),
)


def test_the_table_has_a_line_per_epoch_and_empty_cells_for_nan():
    assert render_table(HISTORY[:2]).splitlines() == [
        "epoch,step,seconds,lr,localisation,classification,matched,mean_ap",
        "1,10,2.5,0.01,2,3,14.5,",
        "2,20,2.25,0.005,1,2,14.5,0.75",
    ]


def test_table_and_curves_are_written_together(tmp_path):
    paths = write_history(tmp_path, HISTORY, DETECTOR_CURVES)

    assert [path.name for path in paths] == ["history.csv", "history.png"]
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_the_best_epoch_is_the_first_of_equals():
    assert best_epoch(HISTORY).epoch == 2
    assert best_epoch(HISTORY[:1]) is None
    assert math.isnan(HISTORY[0].mean_ap)
    assert HISTORY[1].loss == 3.0


def test_without_tensorboard_there_is_no_board(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    assert board_if_installed(tmp_path, 0) is None


def test_the_events_have_their_names_and_no_nan(tmp_path, monkeypatch):
    events = []

    class Writer:
        def __init__(self, folder, purge_step):
            events.append((folder, purge_step))

        def add_scalar(self, tag, value, step):
            events.append((tag, value, step))

        def flush(self):
            events.append("flushed")

    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)

    board = board_if_installed(tmp_path, 10)
    board.add(HISTORY[0], 10)
    board.add(BackboneEpoch(2, 1.0, 0.5, 0.25, 0.75), 20)

    assert events == [
        (str(tmp_path / "tensorboard"), 10),
        ("loss/boxes", 2.0, 10),
        ("loss/classes", 3.0, 10),
        ("learning rate", 0.01, 10),
        "flushed",
        ("loss", 0.25, 20),
        ("learning rate", 0.5, 20),
        ("top 1", 0.75, 20),
        "flushed",
    ]


def test_with_tensorboard_every_epoch_becomes_an_event(tmp_path):
    pytest.importorskip("tensorboard")
    board = board_if_installed(tmp_path, 0)

    for record in HISTORY:
        board.add(record, record.step)

    assert any(path.stat().st_size > 100 for path in (tmp_path / "tensorboard").iterdir())
