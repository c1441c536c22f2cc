"""The families that this version loads, in the order in which they are tried.

`native` comes first: its keys are torchvision's, and the spec in the file tells it apart. The other
signatures exclude each other (tests hold them against every family's key list).
"""

from __future__ import annotations

from mbv3ssd_deploy.checkpoint.families.native import NATIVE
from mbv3ssd_deploy.checkpoint.families.qfgaohao import QFGAOHAO
from mbv3ssd_deploy.checkpoint.families.torchvision import TORCHVISION

FAMILIES = (
    NATIVE,
    TORCHVISION,
    QFGAOHAO,
)
