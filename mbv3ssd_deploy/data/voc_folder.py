"""Which files a VOC folder holds, in any of the layouts that VOC annotations come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.images import IMAGE_EXTENSIONS
from mbv3ssd_deploy.data.made_split import part_folders
from mbv3ssd_deploy.errors import DatasetError


@dataclass(frozen=True, slots=True)
class VocFolder:
    """One root and its files.

    Attributes:
        root: the folder.
        images: by file name without extension.
        twins: images left out, because another one has their name with another extension.
        annotations: by file name without extension.
        lists: likewise, those of `ImageSets/Main`; empty where it came without.
        part: set where the whole folder is one part of a data set.
    """

    root: Path
    images: Mapping[str, Path]
    twins: Mapping[str, Path]
    annotations: Mapping[str, Path]
    lists: Mapping[str, Path]
    part: Split | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that its lists name, or the one that it is."""
        return (self.part,) if self.part else tuple(s for s in Split if s in self.lists)


def list_voc_folders(root: Path) -> list[VocFolder]:
    """Return the folder, or its train, val and test where each holds its own files.

    Raises:
        DatasetError: there is no such folder, or no image or no annotation in it.
    """
    parts = part_folders(root)
    if not parts or (root / "JPEGImages").is_dir():
        return [_list_folder(root)]
    return [_list_folder(path, part) for part, path in parts.items()]


def _list_folder(root: Path, part: Split | None = None) -> VocFolder:
    if not root.is_dir():
        raise DatasetError(
            "there is no such folder",
            where=str(root),
            hint="name the folder that holds JPEGImages, Annotations and ImageSets, or one with "
            "images and .xml files side by side",
        )
    image_folder, annotation_folder = root / "JPEGImages", root / "Annotations"
    images, twins = _files_by_stem(
        image_folder if image_folder.is_dir() else root, IMAGE_EXTENSIONS
    )
    annotations, _ = _files_by_stem(
        annotation_folder if annotation_folder.is_dir() else root, (".xml",)
    )
    if not images or not annotations:
        missing = "image" if not images else "annotation (.xml)"
        raise DatasetError(
            f"there is no {missing} in JPEGImages and Annotations, nor in the folder itself",
            where=str(root),
            hint="other layouts are read as coco:ANNOTATIONS.json,IMAGES and yolo:data.yaml",
        )
    lists, _ = _files_by_stem(root / "ImageSets" / "Main", (".txt",))
    return VocFolder(root, images, twins, annotations, lists, part)


def _files_by_stem(
    folder: Path, extensions: tuple[str, ...]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the first file of each name, and a second one where there is any."""
    first: dict[str, Path] = {}
    second: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in extensions and not path.name.startswith("."):
            (second if path.stem in first else first).setdefault(path.stem, path)
    return first, second
