"""The one way in: `voc:ROOT[,ROOT...]`, `coco:ANNOTATIONS.json,IMAGES` or `yolo:data.yaml`."""

from __future__ import annotations

from pathlib import Path

from mbv3ssd_deploy.data.coco import read_coco
from mbv3ssd_deploy.data.dataset import Dataset, Split, check_class_names, labels_by_name
from mbv3ssd_deploy.data.hash_split import SPLIT_SEED
from mbv3ssd_deploy.data.voc import read_voc
from mbv3ssd_deploy.data.yolo import read_yolo
from mbv3ssd_deploy.errors import DatasetError
from mbv3ssd_deploy.io.progress import Progress, silent

_FORMS = "voc:ROOT[,ROOT...], coco:ANNOTATIONS.json,IMAGES or yolo:data.yaml"


def read_dataset(
    source: str,
    split: Split,
    *,
    class_names: tuple[str, ...] | None = None,
    seed: int = SPLIT_SEED,
    progress: Progress = silent,
) -> Dataset:
    """Read one split of a data set; `docs/datasets.md` describes the formats.

    What is wrong in single annotations and images is left out and listed in `Dataset.problems`
    (`data.summary.summary_of_problems` puts it in words).

    Args:
        source: the format, a colon, and the place of the data.
        split: which part.
        class_names: by label, background first; by default what the data set lists or holds.
        seed: of the split that is made where the data set has none; never that of a training run.
        progress: called after every step.

    Raises:
        DatasetError: the source cannot be understood or found, the split is unknown or empty, class
            names cannot be told apart, or no usable image.
        ValueError: `class_names` does not begin with "background".
    """
    if class_names is not None:
        check_class_names(class_names[1:], where="the class names given")
        labels_by_name(class_names)
    match source.partition(":"):
        case "voc", ":", place if place:
            roots = [Path(part) for part in place.split(",") if part]
            return read_voc(roots, split, class_names=class_names, seed=seed, progress=progress)
        case "coco", ":", place if place:
            return read_coco(place, split, class_names=class_names, seed=seed, progress=progress)
        case "yolo", ":", place if place:
            return read_yolo(Path(place), split, class_names=class_names, progress=progress)
    raise _unknown_source(source)


def _unknown_source(source: str) -> DatasetError:
    folder = Path(source)
    hint = f"write {_FORMS}"
    if folder.is_dir():
        hint = f"a folder in VOC layout, or from LabelImg, is voc:{source}"
    elif folder.suffix in (".yaml", ".yml"):
        hint = f"YOLO's description of a data set is yolo:{source}"
    elif folder.suffix == ".json":
        hint = f"COCO's annotations are coco:{source},IMAGES with the folder of the images"
    return DatasetError("the format of the data set is missing", where=source, hint=hint)
