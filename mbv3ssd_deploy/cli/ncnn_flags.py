"""Options of the ncnn network, shared by `to-ncnn` and `convert`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest

Command = TypeVar("Command", bound=Callable[..., Any])


class RawHeads(click.ParamType["str"]):
    """`--raw-heads` alone means concat; a word after it was probably meant as the bundle."""

    name = "outputs"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Return "concat" or "levels"."""
        if value not in ("concat", "levels"):
            self.fail(
                f"{value!r} is neither concat nor levels; write --raw-heads=concat, "
                "or put the bundle before the flag",
                param,
                ctx,
            )
        return str(value)


_UNIT = click.FloatRange(0.0, 1.0)
_COUNT = click.IntRange(min=1)

_OPTIONS = (
    click.option("--fp32", is_flag=True, help="Store weights as float32; float16 is the default."),
    click.option(
        "--priors",
        type=click.Choice(["auto", "layer", "constant"]),
        default="auto",
        show_default=True,
        help="Store priors as PriorBox layers where these are exact, as layers only, "
        "or as constants.",
    ),
    click.option("--conf", type=_UNIT, help="Score threshold of DetectionOutput."),
    click.option("--nms", type=_UNIT, help="IoU threshold of DetectionOutput."),
    click.option("--top-k", type=_COUNT, help="Candidates per class before NMS."),
    click.option("--keep-top-k", type=_COUNT, help="Detections per image."),
    click.option(
        "--raw-heads",
        is_flag=False,
        flag_value="concat",
        type=RawHeads(),
        metavar="[=concat|=levels]",
        help="End in `loc` and `conf`, or in one pair per level, for your own post-processing.",
    ),
    click.option(
        "--fp16-guard/--no-fp16-guard",
        default=True,
        show_default=True,
        help="Keep the layers that ncnn computes wrongly in float16 on ARM out of float16.",
    ),
    click.option(
        "--bf16-guard/--no-bf16-guard",
        default=True,
        show_default=True,
        help="Keep the Concat of the priors out of bfloat16, which would move them by a pixel.",
    ),
)


def ncnn_flags(function: Command) -> Command:
    """Add these options to a command; `request_from_flags` makes a request of them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def request_from_flags(
    *,
    fp32: bool,
    priors: str,
    conf: float | None,
    nms: float | None,
    top_k: int | None,
    keep_top_k: int | None,
    raw_heads: str | None,
    fp16_guard: bool,
    bf16_guard: bool,
) -> NcnnRequest:
    """Return the request of these options; a missing threshold is the family's."""
    from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest
    from mbv3ssd_deploy.ncnn_graph.graph import Storage
    from mbv3ssd_deploy.ncnn_graph.precision import PrecisionMasks
    from mbv3ssd_deploy.ncnn_graph.priors import PriorMode
    from mbv3ssd_deploy.ncnn_graph.ssd_tail import Outputs

    return NcnnRequest(
        storage=Storage.FLOAT32 if fp32 else Storage.FLOAT16,
        outputs=Outputs.DETECTIONS if raw_heads is None else Outputs(raw_heads),
        priors=PriorMode(priors),
        score_threshold=conf,
        iou_threshold=nms,
        nms_top_k=top_k,
        keep_top_k=keep_top_k,
        guards=PrecisionMasks(fp16=fp16_guard, bf16=bf16_guard),
    )
