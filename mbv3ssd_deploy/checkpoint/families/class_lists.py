"""The names of the classes that published checkpoints were trained on; the background first."""

from __future__ import annotations

BACKGROUND = "background"

# torchvision's list: the index is the COCO category id. COCO left eleven ids unused; their names
# must differ from each other all the same.
COCO_91 = (
    "background person bicycle car motorcycle airplane bus train truck boat traffic_light "
    "fire_hydrant N/A_12 stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear "
    "zebra giraffe N/A_26 backpack umbrella N/A_29 N/A_30 handbag tie suitcase frisbee skis "
    "snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket "
    "bottle N/A_45 wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli "
    "carrot hot_dog pizza donut cake chair couch potted_plant bed N/A_66 dining_table N/A_68 "
    "N/A_69 toilet N/A_71 tv laptop mouse remote keyboard cell_phone microwave oven toaster sink "
    "refrigerator N/A_83 book clock vase scissors teddy_bear hair_drier toothbrush"
)


def coco_names() -> tuple[str, ...]:
    """Return the 91 names of torchvision's COCO detectors; unused ids are "N/A 12" and so on."""
    return tuple(name.replace("_", " ") for name in COCO_91.split())


def numbered_names(num_classes: int) -> tuple[str, ...]:
    """Return background, class_1, class_2, ...: the names of classes that nobody named."""
    return (BACKGROUND, *(f"class_{number}" for number in range(1, num_classes)))
