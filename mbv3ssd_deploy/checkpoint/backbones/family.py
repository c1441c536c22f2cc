"""What a family of backbone weights is: how to recognise it, what it is wired like, its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mbv3ssd_deploy.checkpoint.families.family import Signature
from mbv3ssd_deploy.checkpoint.keymap import KeyMap
from mbv3ssd_deploy.core.spec import ArchSpec, Backbone
from mbv3ssd_deploy.nets.names import NetNames

CLASSIFIER_DROPPED = "part of the classifier, which no detector runs"
CLASSIFIER = "classifier"
"""What our own classifier is called: `classifier.0` and `classifier.3` are its dense layers."""


@dataclass(frozen=True, slots=True)
class BackboneFamily:
    """Files of classification weights from one code base.

    Attributes:
        name: for people and for `--json`.
        title: where the files come from.
        signature: how its files are told from all others.
        large_key: a key that only the Large network has; None where there is no Large.
        layouts: the layout of `nets/layouts.py` whose backbone each network is, number by number.
            A network that stands in `why_not` instead is no layout's.
        why_not: why the other networks feed no detector.
        bn_eps: of every BatchNorm.
        keymap: the renaming of its keys. The classifier's layers go to `classifier.0` and
            `classifier.3` where they compute what ours do, and are dropped elsewhere.
        trained_on: the input that published files were trained on.
        notes: what a user should know of every file.
        dense: keys of 1x1 convolutions that stand behind the pooling: dense layers, to us.
    """

    name: str
    title: str
    signature: Signature
    large_key: str | None
    layouts: Mapping[Backbone, str]
    why_not: Mapping[Backbone, str]
    bn_eps: float
    keymap: Callable[[ArchSpec, NetNames], KeyMap]
    trained_on: str
    notes: tuple[str, ...] = ()
    dense: tuple[str, ...] = field(default=())
