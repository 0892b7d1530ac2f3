"""The latest spikes of all layers as one grey picture: neurons from top to bottom, time from left to right."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

GAP = 4
"""Rows between two layers."""
GAP_SHADE = 70
"""Of these rows."""


class SpikeRaster:
    """Collects spikes, control step after control step."""

    def __init__(self, steps: int = 250, rows: int = 240) -> None:
        """Start empty.

        Args:
            steps: control steps that are shown; each is one column.
            rows: for the neurons of all layers; where there are more neurons, several share a row, the most active of
                which shows.
        """
        self._steps = steps
        self._rows = rows
        self._layers: dict[str, int] = {}
        self._columns: NDArray[np.uint8] = np.zeros((0, steps), dtype=np.uint8)

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        """First row and number of rows of each layer."""
        found, first = {}, 0
        for name, neurons in self._layers.items():
            rows = -(-neurons // self._shared)
            found[name] = first, rows
            first += rows + GAP
        return found

    @property
    def _shared(self) -> int:
        """Neurons per row."""
        return max(1, -(-sum(self._layers.values()) // self._rows))

    def add(self, spikes: Mapping[str, NDArray[np.uint8]]) -> None:
        """One control step; other layers than before start a new picture.

        Args:
            spikes: [ticks, neurons] by layer.
        """
        sizes = {name: layer.shape[1] for name, layer in spikes.items()}
        if sizes != self._layers:
            self._layers = sizes
            height = sum(rows + GAP for _, rows in self.layers.values()) - GAP
            self._columns = np.zeros((max(height, 1), self._steps), dtype=np.uint8)
        self._columns = np.roll(self._columns, -1, axis=1)
        self._columns[:, -1] = GAP_SHADE
        for name, (first, rows) in self.layers.items():
            shade = 255.0 * spikes[name].mean(axis=0) ** 0.5
            padded = np.zeros(rows * self._shared)
            padded[: shade.size] = shade
            self._columns[first : first + rows, -1] = padded.reshape(rows, -1).max(axis=1)

    def image(self) -> NDArray[np.uint8]:
        """Grey values, [rows, steps]: the square root of the share of ticks with a spike, 255 for every tick."""
        return self._columns.copy()
