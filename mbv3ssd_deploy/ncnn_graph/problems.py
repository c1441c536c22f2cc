"""How what is wrong with a graph is put into words."""

from __future__ import annotations

from dataclasses import dataclass

from mbv3ssd_deploy.ncnn_graph.graph import NcnnLayer


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and the index of the layer it stands in."""

    layer: int
    message: str


def title(layer: NcnnLayer) -> str:
    """Return how messages call a layer: its type and its name."""
    return f"{layer.type} {layer.name!r}"


def one_message(problems: tuple[str, ...]) -> str:
    """Return the problems as one sentence, or as a counted list."""
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join((f"{len(problems)} problems:", *problems))
