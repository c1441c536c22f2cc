"""An ncnn network from its two files."""

from __future__ import annotations

from pathlib import Path

from mbv3ssd_deploy.errors import FormatError
from mbv3ssd_deploy.ncnn_graph.graph import NcnnGraph
from mbv3ssd_deploy.ncnn_graph.param_text import ParsedParam, inspect_param, parse_param
from mbv3ssd_deploy.ncnn_graph.weight_bin import parse_bin


def read_ncnn(param_path: Path, bin_path: Path) -> NcnnGraph:
    """Read a .param and its .bin, strictly: exact counts, exact length, nothing unknown.

    Raises:
        FormatError: a file is missing or broken; `where` tells the file and the line.
    """
    graph = parse_param(_read_text(param_path), source=str(param_path))
    return parse_bin(graph, _read_bytes(bin_path), source=str(bin_path))


def read_param(param_path: Path) -> ParsedParam:
    """Read a stranger's .param for showing: what can be understood, and all that is wrong with it.

    Raises:
        FormatError: the file is missing, or is no .param at all.
    """
    return inspect_param(_read_text(param_path), source=str(param_path))


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"byte {error.start} is not text",
            where=str(path),
            hint="a .param.bin and a .bin are binary; name the text .param",
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", where=str(path)) from error
