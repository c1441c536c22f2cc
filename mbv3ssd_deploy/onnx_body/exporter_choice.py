"""Which of PyTorch's exporters somebody wants; asking for one does not import PyTorch."""

from __future__ import annotations

import enum


class ExporterChoice(enum.StrEnum):
    """Which of PyTorch's exporters may make the model."""

    AUTO = "auto"
    """The first that gives a sound body, the TorchScript exporter being asked first."""
    TORCHSCRIPT = "torchscript"
    DYNAMO = "dynamo"
