from pathlib import Path

import torch

from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.core.truth import truth_from_boxes
from mbv3ssd_deploy.data.dataset import Dataset, Sample
from mbv3ssd_deploy.train.recipe_table import RECIPES
from mbv3ssd_deploy.train.request import TrainRequest
from mbv3ssd_deploy.train.start import new_start
from mbv3ssd_deploy.train.training_data import TrainingData

REQUEST = TrainRequest(
    "voc:somewhere",
    Path("run"),
    backbone=Backbone.SMALL,
    width_mult=0.25,
    image_size=(96, 96),
)


def start_for(side_px):
    """Begin with one class of squares, in an image of 400 x 400 pixels."""
    corners = [[x, x, x + side_px, x + side_px] for x in range(0, 400 - side_px, 20)]
    truth = truth_from_boxes(torch.tensor(corners).float().numpy(), [1] * len(corners))
    sample = Sample("one", Path("one.jpg"), 400, 400, truth)
    data = Dataset("squares", ("background", "square"), (sample,))
    return new_start(REQUEST, RECIPES["small-data"], TrainingData(data, data, ()))


def test_sizes_are_said_to_be_made_only_where_others_fit_better():
    mended, hopeless = start_for(95), start_for(4)

    assert [words.split(",")[0] for words in mended.notices[1:2]] == ["that is poor"]
    assert "the sizes of the priors were made for the data" in mended.notices[1]
    assert mended.spec.priors != hopeless.spec.priors
    assert len(mended.notices) == 3
    assert [words.partition("%")[0] for words in hopeless.notices[:1]] == ["0.0"]
    assert "no other sizes of the priors fit better" in hopeless.notices[1]
    assert "--imgsz" in hopeless.notices[1]
    assert len(hopeless.notices) == 2
