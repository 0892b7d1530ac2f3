"""Draws what a recording shows: how the hand closes in on its goals, and the spikes that move it."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spiking_controller.evaluation.demo.recording import FINAL_WINDOW, Recording
from spiking_controller.evaluation.plot_style import GRID, INK, MUTED, STYLE, label_distances

_LINE = "#1769aa"
_BAND = "#ffe8a3"
_LAYER_COLOURS = ("#1769aa", "#00897b", "#b4531a", "#6a3d9a")
_THRESHOLDS = ((0.05, "5 cm"), (0.02, "2 cm"), (0.01, "1 cm"))
_NEURONS_SHOWN = 64
_RASTER_BEFORE = 0.4
_RASTER_AFTER = 1.6


def draw_distance(recording: Recording, path: Path) -> None:
    """Write a picture of the hand's distance to the active goal over time, on a logarithmic scale."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        start = recording.goal_time[0]
        time, distance = recording.hand_time - start, recording.distance()
        final = recording.final_error()
        lowest = max(5e-4, 0.6 * float(np.nanmin(np.append(distance, 0.01))))
        highest = 1.9 * float(np.nanmax(np.append(distance, 0.1)))
        axes.set_yscale("log")
        axes.set_ylim(lowest, highest)
        axes.set_xlim(0.0, recording.goal_time[-1] - start + recording.goal_duration)

        for threshold, _ in _THRESHOLDS:
            axes.axhline(threshold, color=GRID, linewidth=1.2, zorder=0)
        for number, (sent, error) in enumerate(zip(recording.goal_time - start, final, strict=True), start=1):
            end = sent + recording.goal_duration
            axes.axvspan(end - FINAL_WINDOW, end, color=_BAND, linewidth=0, zorder=0)
            axes.axvline(sent, color=GRID, linewidth=1.0, zorder=0)
            axes.text(
                sent + recording.goal_duration / 2,
                highest / 1.12,
                f"goal {number}\n{100 * error:.1f} cm",
                ha="center",
                va="top",
                fontsize=9,
                linespacing=1.35,
            )
        axes.plot(time, np.maximum(distance, lowest), color=_LINE, linewidth=1.6)

        label_distances(axes.yaxis)
        axes.set_xlabel("time (s)")
        axes.set_ylabel("distance of the hand from the goal")
        axes.set_title(
            f"Hand-to-goal distance in the live graph: median final error {100 * np.nanmedian(final):.2f} cm "
            f"(mean over the last {FINAL_WINDOW} s of each goal, shaded)",
            loc="left",
            fontsize=11,
        )
        figure.savefig(path)


def draw_spikes(recording: Recording, path: Path) -> None:
    """Write a raster of every layer's spikes as a new goal arrives, and the share of neurons that fire."""
    with matplotlib.rc_context(STYLE):
        layers = recording.spikes
        figure = Figure(figsize=(10, 1.2 + 2.0 * len(layers)), dpi=130, layout="constrained")
        grid = figure.add_gridspec(len(layers) + 1, 1, height_ratios=[2.0] * len(layers) + [1.0])
        switch = min(1, len(recording.goal_time) - 1)
        origin = recording.goal_time[switch]
        rate_axes = figure.add_subplot(grid[len(layers)])
        for row, (name, colour) in enumerate(zip(layers, _cycle(len(layers)), strict=True)):
            time, spikes = _ticks(recording, name, origin)
            axes = figure.add_subplot(grid[row], sharex=rate_axes)
            _raster(axes, time, spikes, colour)
            axes.set_ylabel(name.replace("_", " ").replace("/", "\n"), rotation=0, ha="right", va="center")
            axes.text(
                1.0,
                1.01,
                f"{recording.spike_rate()[name]:.0f} spikes per neuron and second",
                transform=axes.transAxes,
                ha="right",
                va="bottom",
                fontsize=8,
                color=MUTED,
            )
            axes.axvline(0.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
            axes.tick_params(labelbottom=False, bottom=False)
            if row == 0:
                axes.set_title(f"Spikes as goal {switch + 1} arrives (dashed line)", loc="left", fontsize=11)
            rate_axes.plot(
                time,
                100 * _smooth(spikes.mean(axis=1), round(0.04 / _tick_length(recording, name))),
                color=colour,
                linewidth=1.4,
            )
        rate_axes.axvline(0.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        rate_axes.set_ylabel("firing\n(% of neurons\nper tick)", rotation=0, ha="right", va="center")
        rate_axes.set_ylim(bottom=0.0)
        rate_axes.set_xlim(-_RASTER_BEFORE, _RASTER_AFTER)
        rate_axes.set_xlabel(f"time since goal {switch + 1} was sent (s)")
        figure.savefig(path)


def _cycle(count: int) -> list[str]:
    return [_LAYER_COLOURS[index % len(_LAYER_COLOURS)] for index in range(count)]


def _tick_length(recording: Recording, layer: str) -> float:
    return recording.control_period / recording.spikes[layer].shape[1]


def _ticks(recording: Recording, layer: str, origin: float) -> tuple[np.ndarray, np.ndarray]:
    """Times of single ticks relative to `origin`, [ticks], and the spikes in them, [ticks, neurons]."""
    spikes = recording.spikes[layer]
    steps, ticks, neurons = spikes.shape
    offset = np.arange(ticks) * _tick_length(recording, layer)
    time = (recording.step_time()[:, None] + offset - origin).reshape(steps * ticks)
    shown = (time >= -_RASTER_BEFORE) & (time <= _RASTER_AFTER)
    return time[shown], spikes.reshape(steps * ticks, neurons)[shown]


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Moving average [samples] that takes fewer samples at both ends."""
    kernel = np.ones(max(1, min(window, len(values))))
    counts = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.asarray(np.convolve(values, kernel, mode="same") / counts)


def _raster(axes: Axes, time: np.ndarray, spikes: np.ndarray, colour: str) -> None:
    """One row per neuron; of large layers an even selection, in the layer's own order."""
    neurons = spikes.shape[1]
    chosen = np.unique(np.linspace(0, neurons - 1, min(neurons, _NEURONS_SHOWN)).round().astype(int))
    for row, neuron in enumerate(chosen):
        moments = time[spikes[:, neuron] > 0]
        axes.vlines(moments, row, row + 0.85, color=colour, linewidth=0.9)
    axes.set_ylim(0, len(chosen))
    axes.set_yticks([0, len(chosen)], ["1", str(neurons)])
