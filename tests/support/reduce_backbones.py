"""Make tests/data/backbones.npz from the zoo's `init_*` fixtures.

    python tests/support/reduce_backbones.py

Kept are the key lists, the recipe of the weights and the recorded outputs, none of them rounded; of
the one recorded feature map all but its first column.
"""

import json

import numpy as np
from zoo import BACKBONES, ZOO, meta, oracle


def facts(folder):
    about = meta(folder)
    return {
        "keys": json.loads((ZOO / folder / "keys.json").read_text()),
        "weights": about["weights"],
        "synthetic_input": {
            key: value for key, value in about["synthetic_input"].items() if key != "use"
        },
    }


def recorded(folder):
    arrays = oracle(folder)
    return arrays["syn_logits"] if "syn_logits" in arrays else arrays["syn_features"][..., 0]


def main(into=BACKBONES):
    folders = sorted(path.name for path in ZOO.glob("init_*"))
    about = {folder: facts(folder) for folder in folders}
    np.savez_compressed(
        into,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        **{folder: recorded(folder) for folder in folders},
    )


if __name__ == "__main__":
    main()
