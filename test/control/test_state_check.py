"""Lies are found in any motion, and what sensors do is none."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample, ArmStateReader
from spiking_controller.control.state_check import CONTRADICTION, JUMP, LATE, Doubt, StateCheck
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.dynamics import ArmDynamics

FloatArray = NDArray[np.float64]
ARM = get_arm("panda")
DYNAMICS = ArmDynamics(ARM)
Lie = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]


class Motion:
    """Every joint swings about home; the fastest reaches that speed, rad/s."""

    def __init__(self, seed: int, speed: float) -> None:
        rng = np.random.default_rng(seed)
        self._frequency = rng.uniform(1.0, 6.0, 7)
        self._phase = rng.uniform(0.0, 2.0 * np.pi, 7)
        self._amplitude = rng.uniform(0.3, 1.0, 7)
        self._amplitude *= speed / (self._amplitude * self._frequency).max()

    def at(self, time: float) -> tuple[FloatArray, FloatArray]:
        angle = self._frequency * time + self._phase
        return ARM.home + self._amplitude * np.sin(angle), self._amplitude * self._frequency * np.cos(angle)


def sensed(
    motion: Motion,
    duration: float,
    publish: float = 0.002,
    renew: float = 0.0,
    quantum: float = 0.0,
    noise: float = 0.0,
    lie: Lie | None = None,
    lie_from: float = 0.0,
) -> Iterator[ArmSample | Any]:
    """What a reader makes of a driver's messages: renewed values every `renew` s, sent every `publish` s."""
    reader = ArmStateReader(ARM.joint_names, ARM.limits)
    rng = np.random.default_rng(0)
    fresh_until = -1.0
    for step in range(round(duration / publish)):
        now = step * publish
        if now >= fresh_until - 1e-9:
            fresh_until = now + renew
            position, velocity = motion.at(now)
            position = position + noise * rng.standard_normal(7)
            velocity = velocity + 20.0 * noise * rng.standard_normal(7)
            if quantum:
                position = np.round(position / quantum) * quantum
        told = lie(position, velocity) if lie and now >= lie_from else (position, velocity)
        yield reader.read(round(1e9 * now), ARM.joint_names, *told)


def checked(samples: Iterator[Any]) -> tuple[StateCheck, list[Doubt], float]:
    """The check after all samples, its doubts, and when the first doubt or contradiction came, s."""
    check = StateCheck(ARM.joint_names, ARM.limits, DYNAMICS, ARM.home)
    doubts: list[Doubt] = []
    first = np.inf
    for sample in samples:
        found = check.examine(sample)
        if isinstance(found, Doubt):
            doubts.append(found)
        if doubts or check.contradiction:
            first = min(first, sample.time / 1e9)
    return check, doubts, first


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    speed=st.floats(0.0, 2.0),
    rate=st.floats(30.0, 1000.0),
    quantum=st.sampled_from([0.0, 1e-4, 5e-4]),
    noise=st.sampled_from([0.0, 1e-4, 1e-3]),
    renew=st.sampled_from([0.0, 0.034]),
)
def test_sensors_raise_no_alarm(
    seed: int, speed: float, rate: float, quantum: float, noise: float, renew: float
) -> None:
    samples = sensed(Motion(seed, speed), 2.0, 1.0 / rate, renew, quantum, noise)
    check, doubts, _ = checked(samples)
    assert [doubt.fault.sentence for doubt in doubts] == []
    assert (check.contradiction, check.outliers) == ("", 0)


LIES: dict[str, Lie] = {
    "zero": lambda position, velocity: (position, 0.0 * velocity),
    "sign": lambda position, velocity: (position, -velocity),
    "degrees": lambda position, velocity: (position, np.degrees(velocity)),
    "turns": lambda position, velocity: (position, velocity / (2.0 * np.pi)),
    "order": lambda position, velocity: (position, np.roll(velocity, 1)),
}


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), speed=st.floats(0.8, 2.0), kind=st.sampled_from(sorted(LIES)), start=st.floats(0, 1))
def test_wrong_velocities_are_found_within_a_tenth_of_a_second(
    seed: int, speed: float, kind: str, start: float
) -> None:
    motion = Motion(seed, speed)
    _, _, first = checked(sensed(motion, 2.5, lie=LIES[kind], lie_from=start))
    # A tenth of a second of motion, which some joint must have made.
    moving = next(t for t in np.arange(start, 2.5, 0.002) if np.abs(motion.at(t)[0] - motion.at(start)[0]).max() > 0.03)
    assert first <= max(moving, start) + 0.1


def test_velocities_that_were_wrong_are_believed_again_once_they_are_right() -> None:
    motion = Motion(1, 1.5)
    check = StateCheck(ARM.joint_names, ARM.limits, DYNAMICS, ARM.home)
    for sample in sensed(motion, 4.0, lie=lambda position, velocity: (position, 0.0 * velocity), lie_from=0.0):
        if sample.time < 1_000_000_000:
            found = check.examine(sample)
        else:
            found = check.examine(sample._replace(joint_velocity=motion.at(sample.time / 1e9)[1]))
        if 500_000_000 < sample.time < 1_000_000_000:
            assert isinstance(found, ArmSample)
            np.testing.assert_allclose(found.joint_velocity, motion.at(sample.time / 1e9)[1], atol=0.2)
    assert check.contradictions == 1
    assert check.contradiction == ""


def test_a_single_outlier_is_left_out() -> None:
    check = StateCheck(ARM.joint_names, ARM.limits, DYNAMICS, ARM.home)
    left_out = []
    for number, sample in enumerate(sensed(Motion(2, 1.0), 1.0)):
        if number == 200:
            sample = sample._replace(joint_position=sample.joint_position + 0.4 * np.eye(7)[3])
        if check.examine(sample) is None:
            left_out.append(number)
    assert left_out == [200]
    assert check.outliers == 1


@pytest.mark.parametrize(
    ("lie", "kind"),
    [
        (lambda motion, time: motion.at(min(time, 0.5)), "frozen"),
        (lambda motion, time: (motion.at(time)[0] + 0.3 * (time > 0.5) * np.eye(7)[2], motion.at(time)[1]), JUMP),
        (lambda motion, time: motion.at(time - 0.06 * (time > 0.5)), LATE),
    ],
    ids=["frozen", "offset", "delayed"],
)
def test_positions_that_cannot_be_true_are_named(lie: Any, kind: str) -> None:
    motion = Motion(3, 1.8)
    reader = ArmStateReader(ARM.joint_names, ARM.limits)
    check = StateCheck(ARM.joint_names, ARM.limits, DYNAMICS, ARM.home)
    for step in range(400):
        position, velocity = lie(motion, 0.002 * step)
        sample = reader.read(2_000_000 * step, ARM.joint_names, position, velocity)
        assert isinstance(sample, ArmSample)
        found = check.examine(sample)
        if isinstance(found, Doubt):
            break
    assert isinstance(found, Doubt)
    assert found.fault.kind == kind
    assert 0.49e9 <= found.since <= 0.51e9
    assert step * 0.002 < 0.6


def test_an_arm_at_rest_with_a_quiet_encoder_is_not_frozen() -> None:
    _, doubts, _ = checked(sensed(Motion(4, 0.0), 5.0, quantum=5e-4))
    assert doubts == []


def test_opposite_signs_are_not_estimated_away() -> None:
    _, doubts, _ = checked(sensed(Motion(5, 1.5), 1.0, lie=LIES["sign"]))
    assert doubts[0].fault.kind == CONTRADICTION
    assert "signs" in doubts[0].fault.sentence
