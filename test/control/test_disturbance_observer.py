"""The observer takes loads and pushes off within a second or two, and leaves the arm that the networks know alone."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.control.controller import Controller, ControllerSettings
from spiking_controller.control.disturbance_filter import correct, let_pass, load_response, solve
from spiking_controller.control.disturbance_observer import DisturbanceObserver
from spiking_controller.errors import ConfigError
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, load_checkpoint
from spiking_controller.resources import share_path
from spiking_controller.robots.simulation import ArmCondition
from spiking_controller.tasks.reach import get_task
from test.control.lying_driver import LivingArm
from test.control.test_controller import AT_ONCE, HOME, MS, ScriptedNetworks, run, samples
from test.control.test_lies import HonestDriver

TASK = get_task("panda_reach")
GOALS = np.array([(0.4, 0.3, 0.5), (0.5, -0.3, 0.35)])
OFF = ControllerSettings(disturbance_gain=0.0)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(share_path("models", "panda_reach.safetensors"))


def at_its_goal(checkpoint: Checkpoint, settings: ControllerSettings | None = None) -> LivingArm:
    arm = LivingArm(checkpoint, settings)
    arm.supervisor.set_goal(GOALS[0])
    arm.run(3.0)
    assert distance(arm) < 0.005
    return arm


def distance(arm: LivingArm) -> float:
    goal = arm.supervisor.controller.goal
    assert goal is not None
    return float(np.linalg.norm(arm.hand() - goal))


def test_the_arm_that_the_networks_know_gets_the_same_torque_to_the_last_bit(checkpoint: Checkpoint) -> None:
    torques = []
    for chosen in (ControllerSettings(), OFF):
        arm = LivingArm(checkpoint, chosen)
        sent = []
        for goal in GOALS:
            arm.supervisor.set_goal(goal)
            for _ in range(30):
                arm.run(0.1)
                sent.append(arm.torque)
        torques.append(sent)
    np.testing.assert_array_equal(torques[0], torques[1])


def test_a_load_picked_up_while_holding_is_carried_and_weighed(checkpoint: Checkpoint) -> None:
    arm = at_its_goal(checkpoint)
    arm.arm.apply(ArmCondition(payload_mass=2.0))
    arm.run(1.5)
    assert distance(arm) < 0.005
    arm.supervisor.set_goal(GOALS[1])
    arm.run(2.0)
    found = arm.supervisor.controller.observer.disturbance
    assert found.mass == pytest.approx(2.0, rel=0.1)
    assert found.confidence > 0.8
    assert np.abs(found.place).max() < 0.05
    arm.run(1.5)
    assert distance(arm) < 0.005
    assert not arm.faults


def test_a_load_is_not_put_down_when_networks_change(checkpoint: Checkpoint) -> None:
    arm = at_its_goal(checkpoint)
    arm.arm.apply(ArmCondition(payload_mass=2.0))
    arm.run(2.0)
    controller = arm.supervisor.controller
    controller.replace_networks(SpikingAgent(checkpoint.policy, checkpoint.forward_model))
    farthest = 0.0
    for _ in range(20):
        arm.run(0.05)
        farthest = max(farthest, distance(arm))
    assert farthest < 0.01
    assert controller.observer.is_active


def test_a_load_that_is_put_down_is_forgotten(checkpoint: Checkpoint) -> None:
    arm = at_its_goal(checkpoint)
    arm.arm.apply(ArmCondition(payload_mass=2.0))
    arm.run(2.0)
    arm.arm.apply(ArmCondition())
    arm.run(4.0)
    observer = arm.supervisor.controller.observer
    assert distance(arm) < 0.005
    assert not observer.is_active
    assert observer.disturbance.mass == 0.0
    assert not observer.disturbance.torque.any()


@pytest.mark.parametrize("push", [(15.0, 0.0, 0.0), (0.0, -15.0, 0.0), (0.0, 0.0, 15.0)])
def test_a_constant_push_is_held_against(checkpoint: Checkpoint, push: tuple[float, float, float]) -> None:
    arm = at_its_goal(checkpoint)
    arm.arm.push(push, duration=10.0)
    arm.run(2.0)
    assert distance(arm) < 0.003
    jacobian = TASK.arm.chain.position_and_jacobian(arm.arm.joint_position)[1][:, :6]
    found = arm.supervisor.controller.observer.disturbance.torque
    assert np.abs(found - jacobian.T @ push).max() < 1.0


class _Strange:
    """Networks whose predictions are replaced from some time on."""

    def __init__(self, checkpoint: Checkpoint, predict: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
        self._agent = SpikingAgent(checkpoint.policy, checkpoint.forward_model)
        self._predict = predict
        self.is_strange = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._agent, name)

    def predict(self, observation: NDArray[np.floating]) -> NDArray[np.float64]:
        predicted = self._agent.predict(observation)
        return self._predict(predicted) if self.is_strange else predicted


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e6])
def test_an_absurd_prediction_never_reaches_the_torque(checkpoint: Checkpoint, value: float) -> None:
    strange = _Strange(checkpoint, lambda predicted: np.full_like(predicted, value))
    strange.is_strange = True
    torques = []
    for networks, chosen in ((strange, ControllerSettings()), (SpikingAgent(checkpoint.policy), OFF)):
        controller = Controller(TASK, networks, chosen)  # type: ignore[arg-type]
        controller.set_goal(GOALS[0])
        sent = []
        for sample in samples(200):
            command = controller.update(sample)
            sent.append(command.torque)
            if command.new_step and networks is strange:
                controller.report()
        torques.append(sent)
        if networks is strange:
            assert controller.observer.events["absurd prediction"] == 19
    np.testing.assert_array_equal(torques[0], torques[1])


def test_compensation_fades_where_predictions_become_useless(checkpoint: Checkpoint) -> None:
    arm = at_its_goal(checkpoint)
    controller = arm.supervisor.controller
    strange = _Strange(checkpoint, lambda predicted: np.full_like(predicted, np.nan))
    controller.replace_networks(strange)  # type: ignore[arg-type]
    arm.arm.apply(ArmCondition(payload_mass=1.0))
    arm.run(1.0)
    assert controller.observer.is_active
    strange.is_strange = True
    arm.run(1.0)
    assert not controller.observer.is_active
    assert np.isfinite(arm.torque).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 1000.0))
def test_compensation_stays_within_its_share_of_the_torque_limits(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    observer = DisturbanceObserver(TASK)
    position, velocity = HOME + rng.uniform(-0.5, 0.5, 7), np.zeros(7)
    sent = np.zeros(7)
    for _ in range(40):
        observer.pass_time(0.02, sent)
        observer.observe(position, velocity, size * rng.uniform(-0.02, 0.02, 6), rng.uniform(-1.0, 1.0, 6))
        compensation = observer.compensation(rng.uniform(-20.0, 20.0, 6), velocity[:6])
        if compensation is not None:
            assert (np.abs(compensation) <= 0.75 * TASK.arm.limits.torque[:6]).all()
        observer.add_sent(sent, sent, sent, position, velocity, 0.002)
    assert np.isfinite(observer.disturbance.torque).all()
    assert 0.0 <= observer.disturbance.confidence <= 1.0


def test_the_networks_are_told_their_own_action(checkpoint: Checkpoint) -> None:
    networks = ScriptedNetworks(0.1)
    controller = Controller(TASK, networks, AT_ONCE)
    run(controller, samples(1))
    controller.observer.compensation = lambda law, velocity: np.ones(6)  # type: ignore[method-assign]
    torque = run(controller, samples(9, start=2 * MS))[-1].torque
    np.testing.assert_allclose(torque[:6], 0.1 * TASK.torque_scale + 1.0)
    assert not networks.taken


def test_compensation_comes_with_the_soft_start() -> None:
    controller = Controller(TASK, ScriptedNetworks(0.0))
    run(controller, samples(1))
    controller.observer.compensation = lambda law, velocity: np.ones(6)  # type: ignore[method-assign]
    commands = run(controller, samples(600, start=2 * MS))
    np.testing.assert_allclose([commands[k].torque[0] for k in (99, 249, 599)], [0.2, 0.5, 1.0], atol=1e-9)


def test_a_restart_begins_without_an_estimate(checkpoint: Checkpoint) -> None:
    for change in (
        lambda controller: controller.restart(),
        lambda controller: controller.apply(OFF),
    ):
        arm = at_its_goal(checkpoint)
        arm.arm.apply(ArmCondition(payload_mass=2.0))
        arm.run(0.5)
        controller = arm.supervisor.controller
        assert controller.observer.is_active
        change(controller)
        assert not controller.observer.is_active
        assert not controller.observer.disturbance.torque.any()


def test_torque_that_somebody_else_sent_is_not_taken_for_a_disturbance() -> None:
    controller = Controller(TASK, ScriptedNetworks(0.0), AT_ONCE)
    given_samples = samples(40)
    for index, sample in enumerate(given_samples):
        if index == 15:
            controller.safety.torque = np.full(7, 5.0)
        if index == 20:
            assert controller.observer._before is not None
            moved = ArmSample(sample.time, 0.002, True, HOME, np.full(7, 0.5))
            sample = moved
        if controller.update(sample).new_step:
            controller.report()
        if index == 20:
            assert not controller.observer.is_active


@pytest.mark.parametrize("gain", [-0.1, 1.1, np.nan])
def test_a_gain_outside_its_range_is_refused(gain: float) -> None:
    with pytest.raises(ConfigError, match="give a number from 0 to 1"):
        Controller(TASK, ScriptedNetworks(), ControllerSettings(disturbance_gain=gain))


def test_a_warm_up_runs_every_compiled_function_and_leaves_no_trace() -> None:
    observer, untouched = DisturbanceObserver(TASK), DisturbanceObserver(TASK)
    observer.warm_up()
    compiled = (correct, let_pass, load_response, solve)
    signatures = [len(function.signatures) for function in compiled]
    assert all(signatures)
    for each in (observer, untouched):
        sent = np.zeros(7)
        for step in range(60):
            each.pass_time(0.02, sent)
            error = np.full(6, 0.5 if step > 20 else 0.0)
            each.observe(HOME, np.full(7, 0.01), error, np.full(6, 0.1))
            each.compensation(np.zeros(6), np.zeros(6))
            each.add_sent(sent, sent, sent, HOME, np.zeros(7), 0.002)
    assert observer.is_active
    np.testing.assert_array_equal(observer.disturbance.torque, untouched.disturbance.torque)
    assert [len(function.signatures) for function in compiled] == signatures


def test_a_state_that_is_told_again_teaches_nothing(checkpoint: Checkpoint) -> None:
    """An arm whose driver renews its state every 34 ms, but publishes every 2 ms."""
    runs = []
    for gain in (1.0, 0.0):
        arm = LivingArm(checkpoint, ControllerSettings(disturbance_gain=gain))
        arm.driver.lie = HonestDriver(renew=0.034)
        for goal in GOALS:
            arm.supervisor.set_goal(goal)
            arm.run(1.0)
        assert not arm.faults
        runs.append(arm.arm.joint_position)
    np.testing.assert_array_equal(runs[0], runs[1])
