"""The families that this version loads, in the order in which they are tried.

`native` comes first: its keys are torchvision's, and the spec in the file tells it apart. The other
signatures exclude each other (tests hold them against every family's key list), but for one pair:
`tongyu` and `shaoshengsong` files have the same keys, and the statistics in them decide.
"""

from __future__ import annotations

from mbv3ssd_deploy.checkpoint.families.compact import COMPACT
from mbv3ssd_deploy.checkpoint.families.lufficc import LUFFICC
from mbv3ssd_deploy.checkpoint.families.mmdet import MMDET
from mbv3ssd_deploy.checkpoint.families.pytorch_ssd_forks import (
    JUNGIN500,
    QFGAOHAO,
    SHAOSHENGSONG,
    TONGYU,
)
from mbv3ssd_deploy.checkpoint.families.torchvision import NATIVE, TORCHVISION
from mbv3ssd_deploy.checkpoint.families.ujsyehao import UJSYEHAO

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
