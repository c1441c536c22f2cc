"""A split that is made must be the same for whoever makes it."""

import shutil

from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.data.dataset import Split
from mbv3ssd_deploy.data.sources import read_dataset
from mbv3ssd_deploy.train.request import Observer, TrainRequest
from mbv3ssd_deploy.train.run import train_detector


def test_the_seed_of_a_run_does_not_move_images_out_of_the_test(voc, tmp_path):
    shutil.rmtree(voc / "ImageSets")
    notes = []
    request = TrainRequest(
        f"voc:{voc}",
        tmp_path / "run",
        backbone=Backbone.SMALL,
        width_mult=0.25,
        image_size=(96, 96),
        changes={"epochs": 1, "batch": 2},
        seed=3,
        workers=0,
        device="cpu",
    )

    train_detector(request, Observer(note=notes.append))

    of_eval = read_dataset(f"voc:{voc}", Split.TEST).problems[0]
    assert of_eval.kind == "split-made"
    said = [note for note in notes if of_eval.reason in note]
    assert len(said) == 1
    assert said[0].startswith("training and validation data: ")
