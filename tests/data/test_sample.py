import numpy as np

from mbv3ssd_deploy.data.sample import sample_image


def test_a_sample_is_the_same_every_time_and_has_structure():
    image = sample_image(0)

    assert (image.shape, image.dtype) == ((360, 480, 3), np.uint8)
    np.testing.assert_array_equal(image, sample_image(0))
    assert image.std() > 30
    assert np.abs(image.astype(int) - sample_image(1)).mean() > 20
