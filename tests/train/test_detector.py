from pathlib import Path

import torch

from mbv3ssd_deploy.core.spec import Backbone
from mbv3ssd_deploy.core.truth import truth_from_boxes
from mbv3ssd_deploy.data.dataset import Dataset, Sample
from mbv3ssd_deploy.train.config import RECIPES, Observer, TrainRequest
from mbv3ssd_deploy.train.detector import DetectorTask

REQUEST = TrainRequest(
    "voc:somewhere",
    Path("run"),
    backbone=Backbone.SMALL,
    width_mult=0.25,
    image_size=(96, 96),
)


def start_for(side_px):
    """The spec and the notices for one class of squares in an image of 400 x 400 pixels."""
    corners = [[x, x, x + side_px, x + side_px] for x in range(0, 400 - side_px, 20)]
    truth = truth_from_boxes(torch.tensor(corners).float().numpy(), [1] * len(corners))
    sample = Sample("one", Path("one.jpg"), 400, 400, truth)
    data = Dataset("squares", ("background", "square"), (sample,))
    notices = []
    task = DetectorTask(REQUEST, RECIPES["small-data"], Observer(note=notices.append))
    task._train, task.class_names = data, data.class_names
    task.start()
    return task.spec, notices


def test_prior_sizes_are_fitted_only_where_others_fit_better():
    (fitted, of_fitted), (standard, of_standard) = start_for(95), start_for(4)

    assert [words.split(",")[0] for words in of_fitted[1:2]] == ["that is poor"]
    assert "the sizes of the priors were fitted to the data" in of_fitted[1]
    assert fitted.priors != standard.priors
    assert len(of_fitted) == 3
    assert [words.partition("%")[0] for words in of_standard[:1]] == ["0.0"]
    assert "no other sizes of the priors fit better" in of_standard[1]
    assert "--imgsz" in of_standard[1]
    assert len(of_standard) == 2
