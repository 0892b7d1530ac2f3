"""Watches whether the joint states that come are ones that the networks can control the arm with.

A checkpoint can fit the arm on paper and still not the running graph: the driver may be too slow for the control period
that the networks were trained with, or the joints may stand where the contract's limits do not let them be.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.fault import Fault
from spiking_controller.robots.limits import JointLimits
from spiking_controller.units import NANOSECONDS

WINDOW: Final = 50
"""Periods in one measurement."""
SHARE: Final = 0.2
"""The measurement is the period that this share of them stays below: states that this machine lost make some periods
longer, and must not be laid at the driver's door."""
SHORTEST_MEASUREMENT: Final = 0.5
"""A slow stream is judged after this time, s, if it has given FEWEST periods by then."""
FEWEST: Final = 5
SLACK: Final = 1.1
"""A period longer than allowed by more than this factor is too long."""
LATE: Final = 1.5
"""A state is late if it comes this many periods after the one before it."""
OUTSIDE: Final = 0.05
"""A joint farther beyond its position limit than this, rad, has other limits than those of the contract."""


class StateStream:
    """Measures, by the stamps, how far joint states are apart, and says what is wrong with them.

    Attributes:
        period: measured, s; None before the first measurement.
        late: states that came late, or after others that were lost.
        problem: why the arm must not be driven with these states; None if it may.
        warning: what should be fixed but does not forbid control, one sentence; empty if there is nothing.
    """

    def __init__(
        self, joint_names: Sequence[str], limits: JointLimits, control_period: float, rate_limit_period: float
    ) -> None:
        """Expect states of this arm.

        Args:
            joint_names: as the driver calls them, [n].
            limits: of the contract, [n].
            control_period: that the networks were trained with, s.
            rate_limit_period: in which the torque may change by what the rate limit allows, s.
        """
        self._joint_names = tuple(joint_names)
        self._limits = limits
        self._control_period = control_period
        self._rate_limit_period = rate_limit_period
        self._periods = np.zeros(WINDOW)
        self.late = 0
        self.forget()

    def forget(self) -> None:
        """Measure anew; counts stay."""
        self.period: float | None = None
        self._measured = 0
        self._last: int | None = None
        self._slow: Fault | None = None
        self._outside: Fault | None = None
        self.warning = ""

    @property
    def problem(self) -> Fault | None:
        """See the class."""
        return self._slow or self._outside

    def add(self, sample: ArmSample) -> None:
        """Take the next state."""
        if not sample.continues or self._outside:
            self._look_where_the_joints_are(sample)
        last, self._last = self._last, sample.time
        if last is None or sample.time <= last:
            self._measured = 0
            return
        period = (sample.time - last) / NANOSECONDS
        if self.period is not None and period > LATE * self.period:
            self.late += 1
        self._periods[self._measured] = period
        self._measured += 1
        measured = self._periods[: self._measured]
        if self._measured == WINDOW or (self._measured >= FEWEST and measured.sum() >= SHORTEST_MEASUREMENT):
            self.period = float(np.quantile(measured, SHARE))
            self._measured = 0
            self._judge(self.period)

    def _judge(self, period: float) -> None:
        self._slow, self.warning = None, ""
        if period > SLACK * self._control_period:
            self._slow = Fault(
                "slow joint states",
                f"joint_states come every {1e3 * period:.1f} ms, but the networks were trained with a control period "
                f"of {1e3 * self._control_period:g} ms; have the driver publish faster, or use a model trained with a "
                "longer period.",
            )
        elif period > SLACK * self._rate_limit_period:
            self.warning = (
                f"joint_states come every {1e3 * period:.1f} ms, but rate_limit_period is "
                f"{1e3 * self._rate_limit_period:g} ms, which lets the torque change more slowly than the arm allows; "
                f"set rate_limit_period to {period:.4f}, or have the driver publish faster."
            )

    def _look_where_the_joints_are(self, sample: ArmSample) -> None:
        limits, position = self._limits, sample.joint_position
        outside = (position < limits.position_lower - OUTSIDE) | (position > limits.position_upper + OUTSIDE)
        self._outside = None
        if outside.any():
            joint = int(outside.argmax())
            self._outside = Fault(
                "joint outside its limits",
                f"joint_states has {self._joint_names[joint]} at {position[joint]:.3f} rad, beyond the limits of the "
                f"networks' contract, {limits.position_lower[joint]:g} to {limits.position_upper[joint]:g} rad; check "
                "joint_names and the model of the robot, or move the joint back.",
            )
