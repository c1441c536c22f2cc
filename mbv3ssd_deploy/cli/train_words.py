"""How `train` reads its flags and shows what came of it."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mbv3ssd_deploy.cli.load_flags import read_labels
from mbv3ssd_deploy.cli.output import Output

if TYPE_CHECKING:
    from mbv3ssd_deploy.train.history import EpochRecord
    from mbv3ssd_deploy.train.request import TrainRequest
    from mbv3ssd_deploy.train.run import TrainReport

RECIPE_FLAGS = (
    "epochs",
    "batch",
    "lr",
    "backbone_lr",
    "extras_lr",
    "schedule",
    "milestones",
    "weight_decay",
    "warmup_epochs",
    "clip_norm",
    "ema_decay",
    "vertical_flip",
    "algorithm",
    "freeze",
    "freeze_norms",
)
"""Flags that change a setting of the recipe of the same name."""


class Shares(click.ParamType["tuple[float, ...]"]):
    """Numbers with commas between them."""

    name = "shares"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers; whether they make sense is the recipe's to say."""
        try:
            return tuple(float(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of shares such as 0.6,0.85", param, ctx)


def request_from_flags(**flags: Any) -> TrainRequest:  # noqa: ANN401 -- values of all flags
    """Return what the flags ask for.

    Raises:
        UsageError: neither data nor a run to go on with.
    """
    from mbv3ssd_deploy.core.spec import Backbone
    from mbv3ssd_deploy.data.dataset import Split
    from mbv3ssd_deploy.train.device import Precision
    from mbv3ssd_deploy.train.request import TrainRequest

    if flags["data"] is None and flags["resume"] is None:
        raise click.UsageError("Give --data SOURCE, or --resume RUN/last.pth to go on with a run.")
    changes = {name: flags[name] for name in RECIPE_FLAGS if flags[name] is not None}
    return TrainRequest(
        data=flags["data"],
        output=_folder(flags["folder"], flags["resume"]),
        train_split=_as(Split, flags["split"]),
        val_data=flags["val_data"],
        val_split=_as(Split, flags["val_split"]),
        class_names=None if flags["labels"] is None else _class_names(flags["labels"]),
        recipe=flags["recipe"],
        changes=changes,
        backbone=_as(Backbone, flags["arch"]),
        width_mult=flags["width"],
        image_size=flags["image_size"],
        fit_priors=flags["priors"] == "auto",
        backbone_file=flags["backbone_file"],
        pretrained=flags["pretrained"],
        resume=flags["resume"],
        seed=flags["seed"],
        workers=flags["workers"],
        threads=flags["threads"],
        device=flags["device"],
        precision=_as(Precision, flags["precision"]),
        validate_every=flags["val_every"],
        overwrite=flags["overwrite"],
    )


def words_on_epoch(record: EpochRecord, seconds_left: float) -> str:
    """Return an epoch in one line."""
    measured = "" if math.isnan(record.mean_ap) else f"  mAP50 {record.mean_ap:.3f}"
    left = f"  {duration(seconds_left)} left" if seconds_left > 0 else ""
    return (
        f"epoch {record.epoch:>3}  loss {record.loss:.3f} (boxes {record.localisation:.3f}, "
        f"classes {record.classification:.3f}){measured}  {duration(record.seconds)}{left}"
    )


def duration(seconds: float) -> str:
    """Return a time the way people read it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def show_recipes(out: Output) -> None:
    """Print the recipes that have a name."""
    from mbv3ssd_deploy.io.records import json_from_record
    from mbv3ssd_deploy.train.recipe_table import RECIPES

    out.json({name: json_from_record(recipe) for name, recipe in RECIPES.items()})
    rows = [
        (
            recipe.name,
            recipe.backbone,
            str(recipe.image_size),
            str(recipe.epochs),
            str(recipe.batch),
            f"{recipe.algorithm} {recipe.lr:g}",
            recipe.description,
        )
        for recipe in RECIPES.values()
    ]
    header = ("recipe", "arch", "imgsz", "epochs", "batch", "steps by", "for")
    out.table("Recipes", header, rows)


def show_train_report(report: TrainReport, out: Output) -> None:
    """Say what came of a run, and what to type next."""
    from mbv3ssd_deploy.train.epochs import best_of
    from mbv3ssd_deploy.train.snapshot import BEST, LAST

    record, folder = report.record, report.folder
    best = best_of(record.history)
    if best is not None:
        out.result(f"best mAP50 (VOC07): {best.mean_ap:.4f} after epoch {best.epoch}")
    if report.report is not None:
        rows = [
            (
                report.spec.class_names[one.label],
                "-" if math.isnan(one.ap) else f"{one.ap:.4f}",
                str(one.truths),
            )
            for one in report.report.per_class
        ]
        title = f"Validation after epoch {len(record.history)}"
        out.table(title, ("class", "AP50", "objects"), rows)
    out.written(report.files)
    if not report.files:
        out.note(
            f"nothing was left to do: all {record.recipe.epochs} epochs of the run are done; "
            f"to learn longer, start anew with --pretrained {shlex.quote(str(folder / LAST))}"
        )
    if report.interrupted:
        out.note(f"stopped after step {record.step}; go on with:")
        out.note(f"  mbv3ssd-deploy train --resume {shlex.quote(str(folder / LAST))}")
        return
    name = BEST if (folder / BEST).exists() else LAST
    out.next_step("export", folder / name)


def json_from_train_report(report: TrainReport) -> dict[str, Any]:
    """Return what came of a run as JSON values."""
    from mbv3ssd_deploy.io.records import json_from_record
    from mbv3ssd_deploy.train.epochs import best_of

    record = report.record
    best = best_of(record.history)
    return {
        "interrupted": report.interrupted,
        "epochs": len(record.history),
        "steps": record.step,
        "best": None if best is None else {"epoch": best.epoch, "mAP50": best.mean_ap},
        "classes": {}
        if report.report is None
        else {
            report.spec.class_names[one.label]: None if math.isnan(one.ap) else one.ap
            for one in report.report.per_class
        },
        "recipe": json_from_record(record.recipe),
        "settings": json_from_record(record.settings),
        "files": [str(path) for path in report.files],
    }


def _folder(folder: Path | None, resume: Path | None) -> Path:
    if folder is not None:
        return folder
    return Path("run") if resume is None else resume.parent


def _class_names(path: Path) -> tuple[str, ...]:
    names = read_labels(path)
    return names if names[0].lower() == "background" else ("background", *names)


def _as(kind: Any, value: Any) -> Any:  # noqa: ANN401 -- an enum and its value
    return None if value is None else kind(value)
