"""A simulated arm behind a driver that lies, and the supervised controller that it lies to."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.activity import ActivityTracker
from spiking_controller.control.arm_state import ArmStateReader
from spiking_controller.control.controller import Controller, ControllerSettings
from spiking_controller.control.safety import SafetyFilter
from spiking_controller.control.state_stream import StateStream
from spiking_controller.control.supervisor import FaultBegan, Instant, Supervisor, Timeouts
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.robots.simulation import ArmSimulation
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]
PERIOD: Final = 0.002
"""Of the joint states, s."""


@dataclass
class Told:
    """One joint state as it leaves the driver."""

    time: int
    position: FloatArray
    velocity: FloatArray


class Driver:
    """Tells the truth until it lies; a lie is a function of the truth and of the truths before it, newest last."""

    def __init__(self) -> None:
        self.lie: Callable[[Told, list[Told]], list[Told]] | None = None
        self._before: deque[Told] = deque(maxlen=200)

    def tell(self, truth: Told) -> list[Told]:
        """The joint states that arrive now."""
        self._before.append(truth)
        if self.lie is None:
            return [truth]
        return self.lie(truth, list(self._before))


class LivingArm:
    """The arm, its driver and the supervised controller in lock-step.

    Attributes:
        fastest: of the true joints so far, as a fraction of their velocity limits, [n].
        outside: how far a true joint has been beyond its hard range, rad.
        faults: that began.
        late: the controller's timers are called once in so many periods: its process is kept from running.
    """

    def __init__(self, checkpoint: Checkpoint, settings: ControllerSettings | None = None) -> None:
        task = checkpoint.task
        self.task, self.limits = task, task.arm.limits
        self.names = list(task.arm.joint_names)
        self.arm = ArmSimulation(task.arm, PERIOD)
        self.driver = Driver()
        agent = SpikingAgent(checkpoint.policy, checkpoint.forward_model)
        safety = SafetyFilter(self.limits, task.soft_limit_fraction, PERIOD)
        self.supervisor = Supervisor(
            Controller(task, agent, settings or ControllerSettings(), safety),
            ArmStateReader(self.names, self.limits),
            StateStream(self.names, self.limits, task.control_period, PERIOD),
            ActivityTracker(0.02),
            Timeouts(0.1, 0.1),
        )
        assert self.supervisor.activate(self.now) is None
        self.fastest = np.zeros(len(self.names))
        self.outside = 0.0
        self.late = 1
        self.faults: list[FaultBegan] = []
        self.torque: FloatArray = np.zeros(len(self.names))

    @property
    def now(self) -> Instant:
        return Instant(self.arm.time / NANOSECONDS, self.arm.time / NANOSECONDS)

    def hand(self) -> FloatArray:
        return self.task.arm.chain.position(self.arm.joint_position)

    def run(self, seconds: float) -> None:
        """Let that time pass."""
        for _ in range(round(seconds / PERIOD)):
            self._advance()

    def _advance(self) -> None:
        arm, supervisor = self.arm, self.supervisor
        torque = self.torque
        answered = False
        for told in self.driver.tell(Told(arm.time, arm.joint_position.copy(), arm.joint_velocity.copy())):
            command = supervisor.receive(told.time, self.names, told.position, told.velocity)
            if command is not None:
                torque, answered = command.torque, True
                if command.new_step:
                    supervisor.report()
        on_time = round(self.now.node / PERIOD) % self.late == 0
        if on_time and (bridged := supervisor.bridge(self.now.node)) is not None:
            torque, answered = bridged.torque, True
        if on_time:
            supervisor.check_silence(self.now)
        self.faults += [event for event in supervisor.take_events() if isinstance(event, FaultBegan)]
        if supervisor.fault and on_time and not answered:
            torque = supervisor.ramp(self.now.node).torque
        arm.advance(self.torque)
        self.torque = torque
        self.fastest = np.maximum(self.fastest, np.abs(arm.joint_velocity) / self.limits.velocity)
        beyond = np.maximum(
            self.limits.position_lower - arm.joint_position, arm.joint_position - self.limits.position_upper
        )
        self.outside = max(self.outside, float(beyond.max()))


def _with(told: Told, position: FloatArray | None = None, velocity: FloatArray | None = None) -> Told:
    return Told(
        told.time, told.position if position is None else position, told.velocity if velocity is None else velocity
    )


def _delayed(seconds: float) -> Callable[[Told, list[Told]], list[Told]]:
    age = round(seconds / PERIOD) + 1

    def lie(told: Told, before: list[Told]) -> list[Told]:
        old = before[-min(age, len(before))]
        return [Told(told.time, old.position, old.velocity)]

    return lie


def lies(joint: int, rng: np.random.Generator) -> dict[str, Callable[[Told, list[Told]], list[Told]]]:
    """Every lie by name; those about one joint are about that one."""
    kept: list[Told] = []
    held: list[Told] = []

    def freeze(told: Told, before: list[Told], *, at_rest: bool = False) -> list[Told]:
        if not kept:
            kept.append(told)
        return [Told(told.time, kept[0].position, np.zeros_like(told.velocity) if at_rest else kept[0].velocity)]

    def stuck(told: Told, before: list[Told], *, at_rest: bool) -> list[Told]:
        if not kept:
            kept.append(told)
        position, velocity = told.position.copy(), told.velocity.copy()
        position[joint] = kept[0].position[joint]
        velocity[joint] = 0.0 if at_rest else kept[0].velocity[joint]
        return [Told(told.time, position, velocity)]

    def stuck_position(told: Told, before: list[Told]) -> list[Told]:
        if not kept:
            kept.append(told)
        position = told.position.copy()
        position[joint] = kept[0].position[joint]
        return [Told(told.time, position, told.velocity)]

    def offset(told: Told, before: list[Told]) -> list[Told]:
        position = told.position.copy()
        position[joint] += 0.3
        return [_with(told, position)]

    def joint_sign(told: Told, before: list[Told]) -> list[Told]:
        velocity = told.velocity.copy()
        velocity[joint] *= -1.0
        return [_with(told, velocity=velocity)]

    def burst(told: Told, before: list[Told]) -> list[Told]:
        held.append(told)
        if len(held) < 25:
            return []
        arrived, held[:] = list(held), []
        return arrived

    def spike(told: Told, before: list[Told]) -> list[Told]:
        position = told.position.copy()
        if rng.random() < 0.02:
            position[joint] += 0.5
        return [_with(told, position)]

    return {
        "zero velocities": lambda told, before: [_with(told, velocity=np.zeros_like(told.velocity))],
        "frozen": freeze,
        "frozen at zero velocity": lambda told, before: freeze(told, before, at_rest=True),
        "delayed 50 ms": _delayed(0.05),
        "delayed 100 ms": _delayed(0.1),
        "velocities delayed 50 ms": lambda told, before: [
            _with(told, velocity=before[max(-26, -len(before))].velocity)
        ],
        "velocity signs": lambda told, before: [_with(told, velocity=-told.velocity)],
        "one velocity's sign": joint_sign,
        "velocities in degrees": lambda told, before: [_with(told, velocity=np.degrees(told.velocity))],
        "velocities in turns": lambda told, before: [_with(told, velocity=told.velocity / (2 * np.pi))],
        "positions in degrees": lambda told, before: [_with(told, np.degrees(told.position))],
        "mixed joints": lambda told, before: [_with(told, np.roll(told.position, 1), np.roll(told.velocity, 1))],
        "mixed velocities": lambda told, before: [_with(told, velocity=np.roll(told.velocity, 1))],
        "one joint stuck": lambda told, before: stuck(told, before, at_rest=False),
        "one joint stuck at zero velocity": lambda told, before: stuck(told, before, at_rest=True),
        "one position stuck": stuck_position,
        "one joint offset": offset,
        "position spikes": spike,
        "bursts": burst,
        "half of them lost": lambda told, before: [told] if rng.random() < 0.5 else [],
        "all lost": lambda told, before: [],
    }
