"""The controller keeps its schedule by stamps, starts softly, holds what it must, and survives its networks."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.controller import Command, Controller, ControllerSettings
from spiking_controller.robots.dynamics import ArmDynamics
from spiking_controller.tasks.reach import get_task

TASK = get_task("panda_reach")
HOME = np.asarray(TASK.arm.home)
HAND = TASK.arm.chain.position(HOME)
MS = 1_000_000
AT_ONCE = ControllerSettings(soft_start=0.0)


class ScriptedNetworks:
    """Networks whose action is set from outside; they note what they are given."""

    def __init__(self, action: float | Sequence[float] = 0.0) -> None:
        self.action = np.broadcast_to(np.asarray(action, dtype=np.float64), (6,)).copy()
        self.resets = 0
        self.goals: list[NDArray[np.floating]] = []
        self.taken: list[NDArray[np.floating]] = []
        self.remembered: list[NDArray[np.floating]] = []
        self.seen: NDArray[np.floating] = np.zeros(15)
        self.spikes: dict[str, NDArray[np.uint8]] = {"policy/hidden1": np.ones((4, 3), dtype=np.uint8)}

    def reset(self, batch: int = 1) -> None:
        self.resets += 1

    def act(self, observation: NDArray[np.floating], goal: NDArray[np.floating]) -> NDArray[np.float64]:
        self.goals.append(goal[0].copy())
        self.seen = observation[0].copy()
        return self.action[None].copy()

    def replace_action(self, action: NDArray[np.floating], remembered: NDArray[np.floating] | None = None) -> None:
        self.taken.append(action[0].copy())
        self.remembered.append((action if remembered is None else remembered)[0].copy())

    def predict(self, observation: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.array(observation, dtype=np.float64)


def samples(count: int, start: int = 0, position: NDArray[np.float64] = HOME) -> list[ArmSample]:
    """An arm at rest, a sample every 2 ms; the first one continues if it does not start at 0."""
    return [
        ArmSample(start + 2 * MS * index, 0.002, bool(start) or index > 0, position, np.zeros(7))
        for index in range(count)
    ]


def run(controller: Controller, given: Sequence[ArmSample]) -> list[Command]:
    return [controller.update(sample) for sample in given]


def test_the_networks_act_once_per_control_period() -> None:
    networks = ScriptedNetworks()
    commands = run(Controller(TASK, networks), samples(101))
    assert [command.new_step for command in commands] == [index % 10 == 0 for index in range(101)]
    assert len(networks.goals) == 11


def test_lost_samples_shift_no_later_step_and_missed_steps_are_counted() -> None:
    controller = Controller(TASK, ScriptedNetworks())
    given = samples(60)
    commands = run(controller, given[:10] + given[11:25] + given[52:])
    assert [command.time // MS for command in commands if command.new_step] == [0, 22, 40, 104]
    assert controller.events["missed control step"] == 2


def test_the_action_holds_for_the_period_and_becomes_torque() -> None:
    networks = ScriptedNetworks(0.05)
    commands = run(Controller(TASK, networks, AT_ONCE), samples(10))
    np.testing.assert_allclose(commands[-1].torque[:6], 0.05 * TASK.torque_scale)


def test_velocity_is_damped_at_every_sample_not_only_at_control_steps() -> None:
    controller = Controller(TASK, ScriptedNetworks(), AT_ONCE)
    run(controller, samples(3))
    moving = ArmSample(6 * MS, 0.002, True, HOME, np.full(7, 0.1))
    torque = controller.update(moving).torque
    np.testing.assert_allclose(torque[:6], -0.1 * TASK.damping)


def test_the_start_is_soft_and_the_networks_know_it() -> None:
    networks = ScriptedNetworks(0.1)
    commands = run(Controller(TASK, networks), samples(600))
    shares = [command.torque[0] / TASK.torque_scale[0] for command in commands if command.new_step]
    np.testing.assert_allclose(shares, [0.1 * min(0.02 * step, 1.0) for step in range(60)])
    np.testing.assert_allclose([action[0] for action in networks.taken], shares[:50])


def test_a_lower_torque_scale_weakens_the_networks_but_not_the_damping() -> None:
    networks = ScriptedNetworks(0.1)
    controller = Controller(TASK, networks, replace(AT_ONCE, torque_scale=0.3))
    run(controller, samples(3))
    np.testing.assert_allclose(networks.taken[-1], np.full(6, 0.03))
    torque = controller.update(ArmSample(6 * MS, 0.002, True, HOME, np.full(7, 0.01))).torque
    np.testing.assert_allclose(torque[:6], 0.03 * TASK.torque_scale - 0.01 * TASK.damping)


def test_ten_thousand_updates_leave_no_memory_behind() -> None:
    networks = ScriptedNetworks(0.01)
    controller = Controller(TASK, networks, AT_ONCE)

    def update_and_report(given: Sequence[ArmSample]) -> None:
        for sample in given:
            if controller.update(sample).new_step:
                controller.report()

    update_and_report(samples(1000))
    given = samples(11_000, start=2000 * MS)
    tracemalloc.start()
    try:
        update_and_report(given[:1000])
        networks.goals.clear()
        before = tracemalloc.get_traced_memory()[0]
        update_and_report(given[1000:])
        networks.goals.clear()
        assert tracemalloc.get_traced_memory()[0] - before < 10_000
    finally:
        tracemalloc.stop()


def test_without_a_goal_the_hand_stays_where_it_was_first_seen() -> None:
    networks = ScriptedNetworks()
    controller = Controller(TASK, networks)
    run(controller, samples(5))
    run(controller, samples(20, start=10 * MS, position=HOME + 0.01))
    np.testing.assert_allclose(networks.goals[0], HAND)
    assert controller.goal is not None
    np.testing.assert_allclose(controller.goal, HAND)


def test_clearing_the_goal_holds_the_hand_where_it_is_then() -> None:
    controller = Controller(TASK, ScriptedNetworks())
    controller.set_goal(np.array([0.4, 0.2, 0.5]))
    run(controller, samples(5))
    controller.clear_goal()
    run(controller, samples(10, start=10 * MS, position=HOME + 0.01))
    assert controller.goal is not None
    np.testing.assert_allclose(controller.goal, TASK.arm.chain.position(HOME + 0.01))


def test_near_the_goal_the_policy_sees_a_shifted_goal_and_zero_gain_switches_that_off() -> None:
    goal = HAND + np.array([0.01, 0.0, 0.0])
    networks = ScriptedNetworks()
    controller = Controller(TASK, networks, replace(AT_ONCE, integral_gain=1.0))
    controller.set_goal(goal)
    run(controller, samples(500))
    # All 50 control steps but the first one, in which the hand's speed is not known yet.
    np.testing.assert_allclose(networks.goals[-1], goal + np.array([49 * 0.02 * 0.01, 0.0, 0.0]))
    controller.apply(replace(AT_ONCE, integral_gain=0.0))
    run(controller, samples(20, start=1000 * MS))
    np.testing.assert_array_equal(networks.goals[-1], goal)


def test_a_goal_that_is_repeated_keeps_its_integral() -> None:
    goal = HAND + np.array([0.01, 0.0, 0.0])
    networks = ScriptedNetworks()
    controller = Controller(TASK, networks, replace(AT_ONCE, integral_gain=1.0))
    for second in range(4):
        controller.set_goal(goal)
        run(controller, samples(100, start=200 * second * MS))
    np.testing.assert_allclose(networks.goals[-1], goal + np.array([39 * 0.02 * 0.01, 0.0, 0.0]))
    controller.set_goal(goal + 0.01)
    run(controller, samples(10, start=800 * MS))
    np.testing.assert_array_equal(networks.goals[-1], goal + 0.01)


def stream(controller: Controller, velocity: NDArray[np.float64], start: int = 0, steps: int = 20) -> None:
    """A goal that starts at the hand and is sent every 20 ms, before the joint state of that moment."""
    for step in range(steps):
        controller.set_goal(HAND + 0.02 * step * velocity, (start + 20 * step) * MS)
        run(controller, samples(10, start=(start + 20 * step) * MS))


def test_a_moving_goal_is_seen_at_rest_and_its_motion_is_added() -> None:
    velocity = 0.2
    networks = ScriptedNetworks(0.01)
    controller = Controller(TASK, networks, AT_ONCE)
    run(controller, samples(1))
    stream(controller, np.array([0.0, velocity, 0.0]), start=20)
    joint_velocity = -networks.seen[6:12] * TASK.velocity_scale
    _, jacobian = TASK.arm.chain.position_and_jacobian(HOME)
    np.testing.assert_allclose(jacobian[:, :6] @ joint_velocity, [0.0, velocity, 0.0], atol=0.001)
    np.testing.assert_allclose(networks.remembered[-1], 0.01)
    damping = (TASK.damping + ArmDynamics(TASK.arm).damping[:6]) / TASK.torque_scale
    np.testing.assert_allclose(networks.taken[-1], 0.01 + damping * joint_velocity, atol=1e-6)
    np.testing.assert_allclose(networks.goals[-1], HAND + np.array([0.0, 19 * 0.02 * velocity, 0.0]), atol=1e-6)


def test_without_following_every_goal_of_a_stream_is_chased_as_if_it_rested() -> None:
    networks = ScriptedNetworks()
    controller = Controller(TASK, networks, replace(AT_ONCE, following_gain=0.0))
    run(controller, samples(1))
    stream(controller, np.array([0.0, 0.2, 0.0]), start=20)
    assert not networks.taken
    assert not networks.seen[6:12].any()


@pytest.mark.parametrize("latency", [0.0, 0.1])
def test_fixed_goals_and_repeated_ones_are_not_led(latency: float) -> None:
    torques = []
    for following in (0.0, 1.0):
        networks = ScriptedNetworks(0.01)
        controller = Controller(TASK, networks, ControllerSettings(following_gain=following, goal_latency=latency))
        run(controller, samples(1))
        goal = HAND + np.array([0.01, 0.02, 0.0])
        commands = []
        for step in range(50):
            controller.set_goal(goal, (20 + 20 * step) * MS)
            commands += run(controller, samples(10, start=(20 + 20 * step) * MS))
        torques.append([command.torque for command in commands] + networks.goals)
    for without, with_following in zip(*torques, strict=True):
        np.testing.assert_array_equal(without, with_following)


def test_a_goal_that_moves_leaves_no_integral_behind_and_loses_none() -> None:
    networks = ScriptedNetworks()
    controller = Controller(TASK, networks, AT_ONCE)
    controller.set_goal(HAND + np.array([0.01, 0.0, 0.0]))
    run(controller, samples(500))
    shift = networks.goals[-1] - HAND - [0.01, 0.0, 0.0]
    assert shift[0] > 0.005
    controller.set_goal(HAND + np.array([0.01, 0.0, 0.0]), 1000 * MS)
    for step in range(1, 30):
        controller.set_goal(HAND + np.array([0.01, 0.001 * step, 0.0]), (1000 + 20 * step) * MS)
        run(controller, samples(10, start=(1000 + 20 * step) * MS))
    np.testing.assert_allclose(networks.goals[-1] - HAND - [0.01, 0.029, 0.0], shift, atol=1e-4)


def test_a_goal_that_is_led_stays_above_the_lowest_height() -> None:
    networks = ScriptedNetworks()
    controller = Controller(TASK, networks, replace(AT_ONCE, goal_latency=0.2))
    run(controller, samples(1))
    for step in range(20):
        controller.set_goal(np.array([0.5, 0.0, 0.15 - 0.005 * step]), (20 + 20 * step) * MS)
        run(controller, samples(10, start=(20 + 20 * step) * MS))
    assert TASK.minimum_goal_height is not None
    assert networks.goals[-1][2] >= TASK.minimum_goal_height - 1e-9
    np.testing.assert_allclose(networks.seen[6:12], 0.0, atol=1e-9)


def test_a_jump_of_time_resets_the_networks_and_starts_softly_again() -> None:
    networks = ScriptedNetworks(0.1)
    controller = Controller(TASK, networks)
    run(controller, samples(600))
    resets = networks.resets
    commands = run(controller, samples(10))
    assert networks.resets == resets + 1
    assert commands[0].new_step
    assert abs(commands[-1].torque[0]) < abs(0.1 * TASK.torque_scale[0])


def test_torque_never_jumps_across_a_jump_of_time() -> None:
    controller = Controller(TASK, ScriptedNetworks(1.0), AT_ONCE)
    last = run(controller, samples(50))[-1].torque
    first = controller.update(ArmSample(0, 0.0, False, HOME, np.zeros(7))).torque
    assert (np.abs(first - last) <= 1000 * 0.002 * (1 + 1e-12)).all()


def test_networks_that_give_nan_are_reset_and_give_no_torque() -> None:
    networks = ScriptedNetworks(np.nan)
    controller = Controller(TASK, networks, AT_ONCE)
    commands = run(controller, samples(30))
    assert all(np.isfinite(command.torque).all() for command in commands)
    assert not commands[-1].torque.any()
    assert controller.events["non-finite action"] == 3


def test_a_step_reports_errors_prediction_and_spikes() -> None:
    controller = Controller(TASK, ScriptedNetworks(), AT_ONCE)
    controller.set_goal(HAND + np.array([0.0, 0.3, 0.4]))
    run(controller, samples(1))
    first = controller.report()
    assert first.prediction_error is None
    assert first.tracking_error == pytest.approx(0.5)
    assert first.predicted_time == 20 * MS
    np.testing.assert_allclose(first.predicted_position, HOME[:6])
    run(controller, samples(10, start=2 * MS, position=HOME + 0.01))
    second = controller.report()
    assert second.prediction_error == pytest.approx(0.01)
    assert second.spikes["policy/hidden1"].shape == (4, 3)


def test_a_warm_up_leaves_no_trace() -> None:
    networks = ScriptedNetworks(1.0)
    controller = Controller(TASK, networks, AT_ONCE)
    controller.warm_up()
    assert controller.goal is None
    assert not controller.safety.torque.any()
    assert not controller.safety.interventions
    assert controller.update(samples(1)[0]).new_step
