"""Options that several commands share: how to read a checkpoint, what to ask of ncnn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mbv3ssd_deploy.ncnn_graph.build import NcnnRequest


Command = TypeVar("Command", bound=Callable[..., Any])

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TRIPLE = (float, float, float)
FAMILY_NAMES = (
    *("native", "torchvision", "qfgaohao", "ujsyehao", "tongyu", "shaoshengsong", "lufficc"),
    *("jungin500", "compact", "mmdet"),
)
"""The names of `checkpoint.families.table`, which would import PyTorch for a help text."""


class ImageSize(click.ParamType["tuple[int, int]"]):
    """`300` for a square, `240x320` for height x width."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (height, width)."""
        words = str(value).lower().split("x")
        if len(words) not in (1, 2) or not all(
            word.isdecimal() and int(word) > 0 for word in words
        ):
            self.fail(f"{value!r} is neither N nor HxW, as in 300 or 240x320", param, ctx)
        numbers = [int(word) for word in words]
        return numbers[0], numbers[-1]


_LOAD_OPTIONS = (
    click.option(
        "--family",
        metavar="NAME",
        help=f"Family of the checkpoint, instead of recognising it: {', '.join(FAMILY_NAMES)}.",
    ),
    click.option(
        "--imgsz",
        "image_size",
        type=ImageSize(),
        metavar="N|HxW",
        help="Input size.  [default: the family's]",
    ),
    click.option(
        "--labels",
        type=EXISTING_FILE,
        help="File of class names, one per line or separated by commas; may start with the "
        "background.",
    ),
    click.option(
        "--num-classes",
        type=click.IntRange(min=2),
        help="Number of classes including the background; must match the heads.",
    ),
    click.option("--mean", type=TRIPLE, help="Mean of 0..255 pixels, in channel order."),
    click.option("--std", type=TRIPLE, help="Standard deviation of 0..255 pixels."),
    click.option("--bgr", is_flag=True, help="The network was trained on BGR images."),
    click.option(
        "--ema", is_flag=True, help="Use the averaged (EMA) weights of a file that has both."
    ),
    click.option(
        "--spec",
        "spec_file",
        type=EXISTING_FILE,
        help="JSON that overrides any field of the spec (see `inspect --write-spec`).",
    ),
)


def load_flags(function: Command) -> Command:
    """Add these options to a command, which gets them as its argument `options`: LoadOptions."""

    @functools.wraps(function)
    def wrapper(
        *args: Any,  # noqa: ANN401
        family: str | None,
        image_size: tuple[int, int] | None,
        labels: Path | None,
        num_classes: int | None,
        mean: tuple[float, float, float] | None,
        std: tuple[float, float, float] | None,
        bgr: bool,
        ema: bool,
        spec_file: Path | None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        from mbv3ssd_deploy.checkpoint.options import LoadOptions
        from mbv3ssd_deploy.core.spec import ChannelOrder

        options = LoadOptions(
            family=family,
            image_size=image_size,
            class_names=None if labels is None else read_labels(labels),
            num_classes=num_classes,
            mean=mean,
            std=std,
            channel_order=ChannelOrder.BGR if bgr else None,
            spec_changes=None if spec_file is None else read_spec_changes(spec_file),
            class_names_from="" if labels is None else str(labels),
            spec_from="" if spec_file is None else str(spec_file),
            ema=ema,
        )
        return function(*args, options=options, **kwargs)

    for option in reversed(_LOAD_OPTIONS):
        wrapper = option(wrapper)
    return wrapper  # type: ignore[return-value]


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names of a label file: one per line, or one line separated by commas.

    Raises:
        SpecError: a name is blank (blank lines at the end are ignored), or the file is not UTF-8.
    """
    from mbv3ssd_deploy.errors import SpecError

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SpecError("not UTF-8 text", where=str(path)) from error
    while lines and not lines[-1].strip():
        lines.pop()
    names = [line.strip() for line in lines]
    if len(names) == 1 and "," in names[0]:
        # scripts of two families end the line with a comma
        names = [name.strip() for name in names[0].rstrip(", ").split(",")]
    if not names or not all(names):
        number = names.index("") + 1 if names else 1
        raise SpecError(
            "a class name is missing",
            where=f"{path}:{number}",
            hint="write one name per line, without blank lines in between",
        )
    return tuple(names)


def read_spec_changes(path: Path) -> dict[str, Any]:
    """Return the JSON object of a `--spec` file.

    Raises:
        SpecError: the file does not hold a JSON object.
    """
    from mbv3ssd_deploy.errors import SpecError
    from mbv3ssd_deploy.io.records import parse_json

    changes = parse_json(path.read_bytes(), where=str(path), error=SpecError)
    if not isinstance(changes, dict):
        raise SpecError(
            "not a JSON object",
            where=str(path),
            hint="make a template with `mbv3ssd-deploy inspect CHECKPOINT --write-spec FILE`",
        )
    return changes


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

_NCNN_OPTIONS = (
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
    for option in reversed(_NCNN_OPTIONS):
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
