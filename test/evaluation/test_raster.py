"""The picture of spikes shows each layer, the latest step at the right, and shares rows where neurons are many."""

import numpy as np

from spiking_controller.evaluation.raster import GAP, GAP_SHADE, SpikeRaster


def test_neurons_are_rows_and_steps_are_columns() -> None:
    raster = SpikeRaster(steps=3)
    for fired in range(4):
        spikes = np.zeros((4, 5), dtype=np.uint8)
        spikes[:, fired] = 1
        raster.add({"policy/hidden1": spikes, "forward_model/hidden1": spikes[:, :2]})
    image = raster.image()
    assert raster.layers == {"policy/hidden1": (0, 5), "forward_model/hidden1": (5 + GAP, 2)}
    assert image.shape == (5 + GAP + 2, 3)
    np.testing.assert_array_equal(image[:5], 255 * np.eye(5, 3, -1, dtype=np.uint8))
    np.testing.assert_array_equal(image[5 : 5 + GAP], GAP_SHADE)
    np.testing.assert_array_equal(image[5 + GAP :], [[0, 0, 0], [255, 0, 0]])


def test_many_neurons_share_rows_and_the_most_active_shows() -> None:
    raster = SpikeRaster(steps=2, rows=10)
    spikes = np.zeros((4, 100), dtype=np.uint8)
    spikes[0, 57] = 1
    raster.add({"layer": spikes})
    image = raster.image()
    assert image.shape == (10, 2)
    assert list(np.flatnonzero(image[:, -1])) == [5]
    assert image[5, -1] == 127


def test_other_layers_start_a_new_picture() -> None:
    raster = SpikeRaster(steps=2)
    raster.add({"a": np.ones((1, 3), dtype=np.uint8)})
    raster.add({"b": np.ones((1, 2), dtype=np.uint8)})
    np.testing.assert_array_equal(raster.image(), [[0, 255], [0, 255]])
