"""The families that this version loads, in the order in which they are tried.

`native` comes first: its keys are torchvision's, and the spec in the file distinguishes it. The
other signatures exclude each other (tests compare them with every family's key list), but for one
pair: `tongyu` and `shaoshengsong` files have the same keys, and the statistics in them decide.
"""

from __future__ import annotations

from mbv3ssd_deploy.checkpoint.families.mmdet import MMDET
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd import (
    JUNGIN500,
    LUFFICC,
    QFGAOHAO,
    SHAOSHENGSONG,
    TONGYU,
)
from mbv3ssd_deploy.checkpoint.families.torchvision import NATIVE, TORCHVISION
from mbv3ssd_deploy.checkpoint.families.xiaolai import COMPACT, UJSYEHAO

FAMILIES = (
    NATIVE,
    TORCHVISION,
    QFGAOHAO,
    UJSYEHAO,
    TONGYU,
    SHAOSHENGSONG,
    LUFFICC,
    JUNGIN500,
    COMPACT,
    MMDET,
)
