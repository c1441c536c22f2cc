"""The flags that say what the ncnn network shall be; `to-ncnn` and `convert` share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest

Command = TypeVar("Command", bound=Callable[..., Any])


class RawHeads(click.ParamType["str"]):
    """`--raw-heads` alone means concat; a word behind it is easily meant as the bundle."""

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
        help="Carry priors as PriorBox layers where these are exact, as layers only, "
        "or as constants.",
    ),
    click.option("--conf", type=_UNIT, help="Score threshold of DetectionOutput."),
    click.option("--nms", type=_UNIT, help="IoU threshold of DetectionOutput."),
    click.option("--top-k", type=_COUNT, help="Candidates of a class before NMS."),
    click.option("--keep-top-k", type=_COUNT, help="Detections of an image."),
    click.option(
        "--raw-heads",
        is_flag=False,
        flag_value="concat",
        type=RawHeads(),
        metavar="[=concat|=levels]",
        help="End in `loc` and `conf`, or level by level, for post-processing of your own.",
    ),
    click.option(
        "--fp16-guard/--no-fp16-guard",
        default=True,
        show_default=True,
        help="Mask the layers that ncnn gets wrong in float16 on ARM; off for a mended ncnn.",
    ),
    click.option(
        "--bf16-guard/--no-bf16-guard",
        default=True,
        show_default=True,
        help="Mask the priors' Concat, which bfloat16 storage would round by a pixel.",
    ),
)


def ncnn_flags(function: Command) -> Command:
    """Give a command these flags; `request_from_flags` makes a request of them."""
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
    """Return the request that the flags describe; a threshold not given is the family's."""
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
