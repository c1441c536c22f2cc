"""Heads as networks make them: mostly background, some objects; and specs with any rule."""

import dataclasses

import numpy as np

from mbv3ssd_deploy.core.spec import (
    BoxEdges,
    ClipRule,
    NmsScope,
    PriorLevel,
    PriorSpec,
    ResultOrder,
)


def random_heads(random, priors, classes, *, objects=8, spread=2.0):
    """Offsets (P, 4) and logits (P, C): background ahead, but around a few objects."""
    loc = random.normal(0, 1, (priors, 4)).astype(np.float32)
    conf = random.normal(0, spread, (priors, classes)).astype(np.float32)
    conf[:, 0] += 6
    for _ in range(objects):
        first = random.integers(0, priors)
        near = slice(first, first + random.integers(1, 12))
        conf[near, random.integers(1, classes)] += random.uniform(4, 12)
    return loc, conf


def random_rules(random, spec):
    """`spec` with decode rules drawn from all that there are."""

    def maybe(low, high):
        return None if random.random() < 0.4 else int(random.integers(low, high))

    decode = dataclasses.replace(
        spec.decode,
        score_threshold=float(random.choice([0.0, 0.001, 0.01, 0.05, 0.3, 0.5, 0.9])),
        iou_threshold=float(random.choice([0.0, 0.3, 0.45, 0.55, 1.0])),
        candidates_per_class=maybe(1, 60),
        keep_per_class=maybe(1, 30),
        keep_total=maybe(1, 80),
        clip_before_nms=bool(random.random() < 0.5),
        iou_epsilon=float(random.choice([0.0, 1e-5, 1e-2])),
        order=ResultOrder(random.choice(list(ResultOrder))),
        box_edges=BoxEdges(random.choice(list(BoxEdges))),
        nms_scope=NmsScope(random.choice(list(NmsScope))),
        suppress_at_threshold=bool(random.random() < 0.5),
    )
    return dataclasses.replace(spec, decode=decode)


def small_priors():
    """57 priors on three levels, the cells of which hold 2, 4 and 3 boxes."""
    levels = (
        PriorLevel(3, 5, 20, 30, 30.0, None, (0.5,)),
        PriorLevel(3, 2, 50, 30, 40.0, 60.0, (2.0, 0.5)),
        PriorLevel(1, 1, 100, 90, 70.0, 80.0, (2.0,)),
    )
    return PriorSpec(100, 90, levels, ClipRule.CENTRE_FORM)
