"""Make tests/data/zoo from the zoo fixtures: what they record, reduced to what decides.

    python tests/support/reduce_zoo.py

Every number is the recorded one, none is rounded or computed anew. What is left out:

* raw heads on the synthetic input: all but the first and the last cell of each level;
* raw heads on the photograph: all rows that cannot change the recorded detections. Suppression is
  greedy, so that a detection depends on nothing but better candidates; what scores below the last
  detection of a list that was cut, or below the threshold of one that was not, decides nothing.
  (One rule looks further: one NMS over all classes shifts them by the largest coordinate of any
  candidate. Another shift of them all changes no IoU.)
* the lists of detections that would need too many rows;
* most pixels of the preprocessed images.
"""

import json
from pathlib import Path

import numpy as np
from reference_specs import ZOO_SPECS
from zoo import REDUCED, ZOO, meta, oracle
from zoo_settings import rules

ROWS_BYTES = 45_000
"""Of one folder's raw heads on the photograph; the list that needs the fewest always has room."""
NEAR = 1e-5
"""Scores nearer than this to a cut count as above it."""


def probabilities(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def decisive_rows(recorded, setting):
    """Which rows of the heads may have a part in the detections of `setting`, as a mask."""
    rule, prefix = rules(setting), setting["prefix"]
    labels, scores = recorded[f"{prefix}_labels"], recorded[f"{prefix}_scores"]
    shares = probabilities(recorded["img_logits"])
    is_cut = len(labels) == rule.get("keep_total")
    lowest = scores.min() if is_cut else rule["score_threshold"]
    decisive = np.zeros(len(shares), dtype=bool)
    for label in range(1, shares.shape[1]):
        own = scores[labels == label]
        is_full = len(own) == rule.get("keep_per_class")
        above = shares[:, label] > (own.min() if is_full else lowest) - NEAR
        ranks = np.argsort(np.argsort(-shares[:, label], kind="stable"))
        decisive |= above & (ranks < (rule.get("candidates_per_class") or len(ranks)) + 5)
    return decisive


def chosen(recorded, settings):
    """Return the settings whose detections fit in, and the rows that they need together."""
    masks = [(decisive_rows(recorded, setting), setting) for setting in settings]
    masks.sort(key=lambda pair: pair[0].sum())
    rows, kept = masks[0][0], [masks[0][1]]
    row_bytes = 4 * (4 + recorded["img_logits"].shape[1])
    for mask, setting in masks[1:]:
        if row_bytes * (rows | mask).sum() <= ROWS_BYTES:
            rows, kept = rows | mask, [*kept, setting]
    return np.flatnonzero(rows), sorted(kept, key=lambda setting: setting["prefix"])


def first_and_last_cells(spec):
    ends, start = [], 0
    for level in spec.levels:
        per_cell, stop = level.boxes_per_cell, start + level.count
        ends += [*range(start, start + per_cell), *range(stop - per_cell, stop)]
        start = stop
    return np.unique(ends)


def reduced(folder):
    recorded, about = oracle(folder), meta(folder)
    img_rows, settings = chosen(recorded, about["detections"])
    syn_rows = first_and_last_cells(ZOO_SPECS[folder].priors)
    image = {key: about["image"][key] for key in ("width", "height")}
    facts = {
        "source": about["source"],
        "keys": json.loads((ZOO / folder / "keys.json").read_text()),
        "weights": about["weights"],
        "synthetic_input": about["synthetic_input"],
        "image": image,
        "detections": settings,
    }
    arrays = {
        "about": np.frombuffer(json.dumps(facts).encode(), np.uint8),
        "priors_f32": recorded["priors_f32"],
        "img_rows": img_rows.astype(np.int16),
        "syn_rows": syn_rows.astype(np.int16),
        "pre0_sample": recorded["pre0_sample"][:, ::4, ::4],
        "pre1_sample": recorded["pre1_sample"][:, ::4, ::4],
    }
    for rows, name in ((img_rows, "img"), (syn_rows, "syn")):
        arrays |= {f"{name}_{head}": recorded[f"{name}_{head}"][rows] for head in ("loc", "logits")}
    for prefix in (setting["prefix"] for setting in settings):
        arrays |= {f"{prefix}_{k}": recorded[f"{prefix}_{k}"] for k in ("boxes", "scores")}
        arrays[f"{prefix}_labels"] = recorded[f"{prefix}_labels"].astype(np.int16)
    return arrays


def main(into=REDUCED):
    Path(into).mkdir(parents=True, exist_ok=True)
    for folder in ZOO_SPECS:
        np.savez_compressed(Path(into) / f"{folder}.npz", **reduced(folder))


if __name__ == "__main__":
    main()
