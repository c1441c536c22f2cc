import numpy as np
import pytest
import torch
from builders import tiny_spec

from mbv3ssd_deploy.core.boxes import corners_from_centre, decode_boxes, iou_matrix
from mbv3ssd_deploy.core.priors import build_priors
from mbv3ssd_deploy.core.spec import BoxCoder
from mbv3ssd_deploy.train.loss import Truths, match_priors

CODER = BoxCoder(centre_variance=0.1, size_variance=0.2)
PRIORS = torch.tensor(
    [[0.25, 0.25, 0.3, 0.3], [0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.3, 0.3], [0.5, 0.5, 0.1, 0.1]]
)


def truths(*images):
    most = max(len(image) for image in images)
    boxes, labels = torch.zeros(len(images), most, 4), torch.zeros(len(images), most).long()
    for row, image in enumerate(images):
        for place, (box, label) in enumerate(image):
            boxes[row, place], labels[row, place] = torch.tensor(box), label
    return Truths(boxes, labels)


def random_truths(seed, images=3, most=9):
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(images):
        corner = rng.uniform(0, 0.7, (int(rng.integers(0, most)), 2))
        size = rng.uniform(0.03, 0.6, corner.shape)
        far = np.minimum(corner + size, 1)
        drawn.append([(box, 1 + i % 3) for i, box in enumerate(np.hstack([corner, far]).tolist())])
    return truths(*drawn, [([0.1, 0.1, 0.4, 0.4], 1)])


def test_a_prior_is_matched_to_a_box_that_it_overlaps_enough():
    labels, _ = match_priors(truths([([0.1, 0.1, 0.4, 0.4], 2)]), PRIORS, CODER)

    assert labels.tolist() == [[2, 0, 0, 0]]  # the second one's IoU is 0.36


def test_every_box_gets_its_best_prior_however_small_the_overlap():
    labels, _ = match_priors(truths([([0.46, 0.46, 0.49, 0.49], 3)]), PRIORS, CODER)

    assert labels.tolist() == [[0, 0, 0, 3]]  # an IoU of 0.09


def test_of_two_boxes_the_better_fit_keeps_the_prior_and_the_other_takes_its_next():
    both = [([0.0, 0.0, 0.5, 0.49], 1), ([0.0, 0.0, 0.5, 0.5], 2)]

    labels, _ = match_priors(truths(both), PRIORS, CODER)

    assert labels.tolist() == [[1, 2, 0, 0]]


def test_a_box_that_overlaps_no_prior_is_unmatched():
    labels, _ = match_priors(truths([([0.9, 0.0, 1.0, 0.1], 1)]), PRIORS, CODER)

    assert labels.tolist() == [[0, 0, 0, 0]]


def test_an_image_without_objects_is_background_beside_one_with_objects():
    labels, offsets = match_priors(truths([], [([0.1, 0.1, 0.4, 0.4], 2)]), PRIORS, CODER)

    assert labels.tolist() == [[0, 0, 0, 0], [2, 0, 0, 0]]
    assert torch.isfinite(offsets).all()


def test_a_batch_without_any_object_is_background():
    empty = Truths(torch.zeros(2, 0, 4), torch.zeros(2, 0).long())

    labels, offsets = match_priors(empty, PRIORS, CODER)

    assert labels.tolist() == [[0] * 4] * 2
    assert offsets.shape == (2, 4, 4)


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_is_matched_as_single_images_are(seed):
    batch, priors = random_truths(seed), _tiny_priors()

    together = match_priors(batch, priors, CODER)

    for row in range(len(batch.labels)):
        count = int((batch.labels[row] > 0).sum())
        alone = match_priors(
            Truths(batch.boxes[row : row + 1, :count], batch.labels[row : row + 1, :count]),
            priors,
            CODER,
        )
        assert torch.equal(together.labels[row], alone.labels[0])
        matched = alone.labels[0] > 0
        assert torch.equal(together.offsets[row][matched], alone.offsets[0][matched])


@pytest.mark.parametrize("seed", range(5))
def test_matches_obey_the_rule_of_the_paper(seed):
    batch, priors = random_truths(seed), _tiny_priors()

    labels, _ = match_priors(batch, priors, CODER)

    for row in range(len(batch.labels)):
        there = batch.labels[row] > 0
        iou = iou_matrix(
            batch.boxes[row][there].double().numpy(),
            corners_from_centre(priors.double().numpy()),
        )
        if not len(iou):
            assert not labels[row].any()
            continue
        enough = iou.max(axis=0) >= 0.5 + 1e-6
        assert (labels[row].numpy()[enough] > 0).all()
        # a match below the threshold is the best prior of some box
        few = (labels[row].numpy() > 0) & (iou.max(axis=0) < 0.5 - 1e-6)
        assert few.sum() <= len(iou)
        matched = iou[:, labels[row].numpy() > 0]
        assert (matched.max(axis=1) >= iou.max(axis=1) - 1e-6).all()


def test_decoding_reverses_the_offsets():
    spec = tiny_spec()
    priors = build_priors(spec.priors).astype(np.float32)
    batch = random_truths(3)

    labels, offsets = match_priors(batch, torch.from_numpy(priors), spec.coder)

    for row in range(len(labels)):
        matched = (labels[row] > 0).numpy()
        decoded = decode_boxes(offsets[row].numpy(), priors, spec.coder)[matched]
        known = batch.boxes[row][batch.labels[row] > 0].numpy()
        assert matched.any() == (len(known) > 0)
        if len(known):
            distance = np.abs(decoded[:, None] - known[None]).max(axis=2)
            assert (distance.min(axis=1) < 1e-5).all()


def _tiny_priors():
    return torch.from_numpy(build_priors(tiny_spec().priors)).float()
