"""How the project's figures look: colours, fonts, and distances on a logarithmic axis."""

from typing import Any

from matplotlib.axis import Axis
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#d9dee4"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f")
"""Okabe and Ito's colours, which colour-blind readers tell apart."""
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}
"""To be laid over matplotlib's defaults with `rc_context`."""

DISTANCE_TICKS = {0.001: "1 mm", 0.002: "2 mm", 0.005: "5 mm", 0.01: "1 cm", 0.02: "2 cm", 0.05: "5 cm"} | {
    0.1: "10 cm",
    0.2: "20 cm",
    0.5: "50 cm",
    1.0: "1 m",
    2.0: "2 m",
    5.0: "5 m",
}


def label_distances(axis: Axis) -> None:
    """Label a logarithmic axis of distances in m with plain lengths."""
    axis.set_major_locator(FixedLocator(list(DISTANCE_TICKS)))
    axis.set_major_formatter(FixedFormatter(list(DISTANCE_TICKS.values())))
    axis.set_minor_locator(NullLocator())
