"""Charts are real pictures, the same for the same values."""

import cv2
import numpy as np
import pytest

from mbv3ssd_deploy.charts import Line, Panel, render_bars, render_curves

PANEL = Panel("Loss", "epoch", "loss", (Line("train", (1, 2, 3), (3.0, 2.0, 1.5)),))


def picture(png):
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_curves_are_drawn_in_colour_and_side_by_side():
    one, two = picture(render_curves([PANEL])), picture(render_curves([PANEL, PANEL]))

    assert two.shape[1] == 2 * one.shape[1]
    assert np.ptp(one.astype(int), axis=2).max() > 100


def test_a_rising_curve_differs_from_a_falling_one():
    rising = Panel("Loss", "epoch", "loss", (Line("train", (1, 2, 3), (1.5, 2.0, 3.0)),))

    assert render_curves([rising]) != render_curves([PANEL])


def test_the_same_values_give_the_same_bytes():
    assert render_curves([PANEL] * 3) == render_curves([PANEL] * 3)


def test_bars_are_drawn_for_every_group():
    one = [("network", [2.0, 3.0])]
    both = [*one, ("post", [1.0, 0.5])]

    assert picture(render_bars("Latency", "ms", ["a", "b"], both)).size > 0
    assert render_bars("Latency", "ms", ["a", "b"], both) != render_bars(
        "Latency", "ms", ["a", "b"], one
    )


def test_a_group_of_another_length_is_refused():
    with pytest.raises(ValueError, match="one value a name"):
        render_bars("Latency", "ms", ["a", "b"], [("network", [1.0])])
