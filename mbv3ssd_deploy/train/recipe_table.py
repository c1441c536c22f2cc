"""The recipes that have a name: a literal table.

Those called after public projects hold the settings that the projects' READMEs and training scripts
give, for this trainer's network, priors and loss; a description says where a setting has no
counterpart here. Nobody ran them here: their data was not at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mbv3ssd_deploy.data.augment import AugmentOptions
from mbv3ssd_deploy.data.colours import ColourOptions
from mbv3ssd_deploy.train.recipes import Algorithm, Recipe, Schedule

DEFAULT_RECIPE = "small-data"
"""What `train` takes when nothing is said."""

_ONLY_CROPS = AugmentOptions(colours=ColourOptions(chance=0.0), zoom_out_chance=0.0)
_WITH_SWAPS = AugmentOptions(colours=ColourOptions(swap_chance=0.5))
_NEEDS_VOC = "Pascal VOC 2007 and 2012 trainval; not run here for want of the data"
_NEEDS_COCO = "COCO 2017; not run here for want of the data"
_NEEDS_THEIRS = "data of its own that was never published, so not run here"

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="small-data",
                description="a few hundred images, from scratch, in an hour or so on a CPU",
                epochs=120,
                batch=16,
                algorithm=Algorithm.ADAMW,
                lr=2e-3,
                weight_decay=0.02,
                warmup_epochs=3.0,
                clip_norm=10.0,
                ema_decay=0.998,
                augmentation=AugmentOptions(zoom_out_chance=0.3, zoom_out_most=2.0),
            ),
            Recipe(
                name="voc0712-large",
                description=f"Large on {_NEEDS_VOC}",
                backbone="large",
                epochs=240,
                batch=32,
                lr=0.02,
                weight_decay=5e-4,
                warmup_epochs=2.0,
                clip_norm=10.0,
                ema_decay=0.9998,
                bn_momentum=0.03,
            ),
            Recipe(
                name="voc0712-small",
                description=f"Small on {_NEEDS_VOC}",
                epochs=240,
                batch=32,
                lr=0.02,
                weight_decay=5e-4,
                warmup_epochs=2.0,
                clip_norm=10.0,
                ema_decay=0.9998,
                bn_momentum=0.03,
            ),
            Recipe(
                name="coco-large",
                description="torchvision's ssdlite320_mobilenet_v3_large (mAP 21.3), 8 GPUs; "
                f"{_NEEDS_COCO}",
                backbone="large",
                epochs=660,
                batch=192,
                lr=0.15,
                weight_decay=4e-5,
                warmup_epochs=1.0,
                bn_momentum=0.03,
                augmentation=_ONLY_CROPS,
            ),
            Recipe(
                name="qfgaohao",
                description=f"mb3-ssd-lite by the README of its sister networks; {_NEEDS_VOC}",
                backbone="large",
                image_size=300,
                epochs=200,
                lr=0.01,
                warmup_epochs=0.0,
                augmentation=_WITH_SWAPS,
            ),
            Recipe(
                name="jungin500",
                description=f"its second stage, from its backbone; {_NEEDS_VOC}",
                image_size=300,
                epochs=200,
                lr=0.01,
                backbone_lr=0.03,
                warmup_epochs=0.0,
                augmentation=_WITH_SWAPS,
            ),
            Recipe(
                name="tongyu",
                description=f"30 kinds of goods on shelves, 95,000 images; {_NEEDS_THEIRS}",
                image_size=300,
                epochs=40,
                lr=0.01,
                warmup_epochs=0.0,
                augmentation=_WITH_SWAPS,
            ),
            Recipe(
                name="shaoshengsong",
                description="cake and bread of Open Images; not run here for want of the data",
                image_size=300,
                epochs=100,
                batch=5,
                lr=0.01,
                backbone_lr=0.1,
                warmup_epochs=0.0,
                augmentation=_WITH_SWAPS,
            ),
            Recipe(
                name="lufficc",
                description=f"120,000 steps (mAP 69.5); {_NEEDS_VOC}",
                backbone="large",
                epochs=232,
                lr=1e-3,
                schedule=Schedule.MULTISTEP,
                milestones=(80 / 120, 100 / 120),
                warmup_epochs=1.0,
            ),
            Recipe(
                name="ujsyehao",
                description=f"25 epochs of ten rounds each (mAP 71.7); {_NEEDS_VOC}",
                backbone="large",
                image_size=300,
                epochs=250,
                batch=16,
                lr=0.02,
                schedule=Schedule.MULTISTEP,
                milestones=(16 / 25, 22 / 25),
                warmup_epochs=0.5,
                clip_norm=35.0,
            ),
            Recipe(
                name="compact",
                description="multi-step in place of its plateau rule, near-L1 for boxes "
                f"(mAP 67.9); {_NEEDS_VOC}",
                backbone="large",
                image_size=300,
                epochs=600,
                lr=1e-3,
                schedule=Schedule.MULTISTEP,
                milestones=(2 / 3, 8 / 9),
                warmup_epochs=0.0,
                smooth_l1_beta=0.01,
            ),
        )
    }
)
"""By name, the default first."""
