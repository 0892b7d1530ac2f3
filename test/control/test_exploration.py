"""Exploration is off by default, bounded when it is on, and passes the safety filter like every action."""

from typing import Any

import numpy as np
import pytest

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.controller import Controller, ControllerSettings
from spiking_controller.control.exploration import ExplorationNoise
from spiking_controller.errors import ConfigError
from spiking_controller.tasks.reach import get_task

TASK = get_task("panda_reach")


class FullThrottle:
    """Networks that always want the full action."""

    spikes: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def reset(self, batch: int = 1) -> None:
        pass

    def act(self, observation: Any, goal: Any) -> Any:
        return np.ones((1, 6))

    def replace_action(self, action: Any, remembered: Any = None) -> None:
        self.taken.append(action[0])

    def predict(self, observation: Any) -> Any:
        return np.asarray(observation)


def test_no_noise_is_the_default_and_leaves_the_action_untouched() -> None:
    assert ControllerSettings().exploration == 0.0
    action = np.full(6, 0.3)
    assert ExplorationNoise(6, 0.0).perturb(action) is action


def test_the_noise_is_bounded_and_has_the_deviation_that_was_asked_for() -> None:
    noise = ExplorationNoise(6, 0.05, seed=1)
    added = np.array([noise.perturb(np.zeros(6)) for _ in range(5000)])
    assert np.abs(added).max() <= 0.1
    assert added.std() == pytest.approx(0.05, rel=0.15)
    assert np.corrcoef(added[1:, 0], added[:-1, 0])[0, 1] == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("deviation", [-0.01, 0.11, float("nan")])
def test_too_much_noise_is_refused(deviation: float) -> None:
    with pytest.raises(ConfigError, match="exploration is"):
        ExplorationNoise(6, deviation)
    with pytest.raises(ConfigError, match="exploration is"):
        Controller(TASK, FullThrottle(), ControllerSettings(exploration=deviation))


def test_explored_actions_stay_legal_torques_and_the_networks_hear_of_them() -> None:
    networks = FullThrottle()
    controller = Controller(TASK, networks, ControllerSettings(soft_start=0.0, exploration=0.1))
    controller.set_goal(np.array([0.4, 0.2, 0.5]))
    last = np.zeros(7)
    limits = TASK.arm.limits
    for tick in range(500):
        sample = ArmSample(tick * 2_000_000, 0.002, tick > 0, np.array(TASK.arm.home), np.zeros(7))
        torque = controller.update(sample).torque
        assert (np.abs(torque) <= limits.torque).all()
        assert (np.abs(torque - last) <= limits.torque_rate * 0.002 + 1e-9).all()
        last = torque
    actions = np.array(networks.taken)
    assert (np.abs(actions) <= 1.0).all()
    assert actions.std() > 0.0
