"""What a viewer shows at one moment, whether it comes from a running graph or from a bag."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CURVES = ("distance", "prediction error", "torque", "disturbance", "spikes")
"""Of `Curves.values`, in m, rad, N·m (the largest of the joints), N·m (the vector's length), 1/s (of all neurons)."""


CONTACT_SHOWN = 1.0
"""How long a contact is shown, s."""
REFUSAL_SHOWN = 6.0
"""How long a refused goal is shown in the scene, s."""


class Health(NamedTuple):
    """One entry of /diagnostics: 0 good, 1 warning, 2 or more error."""

    level: int
    name: str
    message: str


class Curves(NamedTuple):
    """What the curves show.

    Attributes:
        time: s, [samples].
        values: by name, [samples]; NaN where nothing was heard.
    """

    time: FloatArray
    values: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Moment:
    """The state of the arm and of its controller.

    Attributes:
        time: s, stamp of the joint state.
        joint_position: rad, [n].
        goal: m, [3]; None where none is known.
        refusal: why the last goal was refused; empty where it was not.
        refused: that goal, m, [3]; None where none was refused.
        trail: where the hand was, m, [points, 3].
        future: where the networks expect it to go, m, [points, 3].
        future_position: the last joint state of that, rad, [n].
        state, reason: of the controller.
        version: hash of the networks.
        disturbance: torque that the controller takes off, length of the vector, N·m; None where it does not tell.
        load: mass in the hand, kg, and how sure the controller is of it, 0 to 1; None where it does not tell.
        contact: force of a push or a hit just now, if it acted on the hand, N, [3]; None where there is none.
        health: the latest diagnostics.
    """

    time: float
    joint_position: FloatArray
    goal: FloatArray | None = None
    refusal: str = ""
    refused: FloatArray | None = None
    trail: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))
    future: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))
    future_position: FloatArray | None = None
    state: str = ""
    reason: str = ""
    version: str = ""
    disturbance: float | None = None
    load: tuple[float, float] | None = None
    contact: FloatArray | None = None
    health: tuple[Health, ...] = ()
