"""The backbone files that this version recognises. Their signatures exclude each other."""

from __future__ import annotations

from mbv3ssd_deploy.checkpoint.backbones.dli14 import DLI14
from mbv3ssd_deploy.checkpoint.backbones.jungin500 import (
    JUNGIN500_BASE,
    JUNGIN500_V1,
    JUNGIN500_V2,
)
from mbv3ssd_deploy.checkpoint.backbones.leaderj1001 import (
    LEADERJ1001,
    TONGYU_BASE,
    TONGYU_CLASSIFIER,
)
from mbv3ssd_deploy.checkpoint.backbones.torchvision import TIMM, TORCHVISION_CLASSIFIER
from mbv3ssd_deploy.checkpoint.backbones.xiaolai import (
    QFGAOHAO_BASE,
    XIAOLAI_ACT3,
    XIAOLAI_OLD,
    XIAOLAI_POOLED,
)

BACKBONES = (
    TORCHVISION_CLASSIFIER,
    TIMM,
    XIAOLAI_OLD,
    XIAOLAI_POOLED,
    XIAOLAI_ACT3,
    DLI14,
    LEADERJ1001,
    TONGYU_CLASSIFIER,
    TONGYU_BASE,
    JUNGIN500_V1,
    JUNGIN500_V2,
    JUNGIN500_BASE,
    QFGAOHAO_BASE,
)
