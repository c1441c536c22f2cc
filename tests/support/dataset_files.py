"""Small data sets on disk, right and wrong, for the tests of whoever reads them."""

import numpy as np

from mbv3ssd_deploy.data.images import write_image


def plain_image(path, width=64, height=48, grey=90):
    """A picture of one grey; the readers of annotations only ask for its size."""
    write_image(path, np.full((height, width, 3), grey, np.uint8))
    return path


def voc_object(name, box, extra="<difficult>0</difficult>"):
    corners = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object>\n<name>{name}</name>{extra}\n<bndbox>{corners}</bndbox>\n</object>"


def voc_xml(*objects, size=(64, 48)):
    declared = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return "\n".join(["<annotation>", declared, *objects, "</annotation>"])


class VocFolder:
    """A VOC folder that grows by one image at a time; `labelimg` lays files side by side."""

    def __init__(self, root, *, labelimg=False):
        self.root = root
        self.images = root if labelimg else root / "JPEGImages"
        self.annotations = root if labelimg else root / "Annotations"
        self.lists = root / "ImageSets" / "Main"
        for folder in (self.images, self.annotations):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, stem, *objects, size=(64, 48), image=True, xml=None):
        if image:
            plain_image(self.images / f"{stem}.jpg")
        text = voc_xml(*objects, size=size) if xml is None else xml
        (self.annotations / f"{stem}.xml").write_text(text)
        return self

    def list(self, split, *stems):
        self.lists.mkdir(parents=True, exist_ok=True)
        (self.lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        return self

    @property
    def source(self):
        return f"voc:{self.root}"
