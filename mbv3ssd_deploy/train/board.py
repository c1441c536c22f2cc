"""The history of a run for TensorBoard, where that is installed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mbv3ssd_deploy.train.history import EpochRecord

FOLDER = "tensorboard"


class Board:
    """Writes every epoch's numbers as TensorBoard events into `folder / "tensorboard"`."""

    def __init__(self, folder: Path, step: int) -> None:
        """Begin after `step`: what an interrupted run wrote beyond it is hidden.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        # a second of imports that only those pay who have it
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        self._writer: Any = SummaryWriter(str(folder / FOLDER), purge_step=step or None)

    def add(self, record: EpochRecord) -> None:
        """Add an epoch."""
        values = {
            "loss/boxes": record.localisation,
            "loss/classes": record.classification,
            "learning rate": record.lr,
            "mAP50": record.mean_ap,
        }
        for name, value in values.items():
            if not math.isnan(value):
                self._writer.add_scalar(name, value, record.step)
        self._writer.flush()


def board_if_installed(folder: Path, step: int) -> Board | None:
    """Return a board, or None where TensorBoard is not installed."""
    try:
        return Board(folder, step)
    except ImportError:
        return None
