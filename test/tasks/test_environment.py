"""The vectorised environment runs the live graph's torque rule in real physics, repeatably and robustly."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from mujoco.batch import Batch, SimulationError

import spiking_controller.tasks
from spiking_controller.errors import ConfigError, GoalError
from spiking_controller.robots.limits import TorqueLimiter
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.reach import ReachTask, get_task
from spiking_controller.tasks.torque import TorqueLaw

TASKS = ["panda_reach", "planar_reach"]
IDS = ["spiking_controller/PandaReach-v0", "spiking_controller/PlanarReach-v0"]


def same_action(env: ReachVectorEnv, value: float) -> np.ndarray:
    """`value` for every joint of every arm."""
    return np.full((env.num_envs, env.task.controlled_joints), value)


def rollout(env: ReachVectorEnv, steps: int, seed: int = 0, **options: Any) -> dict[str, np.ndarray]:
    """Random actions; the stacked observations and info of `steps` steps."""
    seen, info = env.reset(seed=seed, options=options)
    rng = np.random.default_rng(seed)
    observations, infos = [seen["observation"]], []
    for _ in range(steps):
        seen, _, _, _, info = env.step(rng.uniform(-1, 1, env.action_space.shape))
        observations.append(seen["observation"])
        infos.append(info)
    record = {key: np.stack([info[key] for info in infos]) for key in infos[0]}
    return {"observation": np.stack(observations), "goal": seen["goal"], **record}


@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_gives_identical_episodes_at_any_thread_count(name: str) -> None:
    first = rollout(ReachVectorEnv(name, 5, threads=1), 40, seed=3)
    second = rollout(ReachVectorEnv(name, 5, threads=2), 40, seed=3)
    other = rollout(ReachVectorEnv(name, 5, threads=2), 40, seed=4)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
    assert (first["observation"] != other["observation"]).any()


def test_an_episode_does_not_depend_on_what_ran_before_or_beside_it() -> None:
    task = get_task("panda_reach")
    env = ReachVectorEnv(task, 3)
    rollout(env, 25, seed=1)
    beside = rollout(env, 25, seed=2, start="home", goals=np.full(3, 0.4))
    alone = ReachVectorEnv(task, 1)
    seen, _ = alone.reset(options={"start": "home", "goals": np.full(3, 0.4)})
    for t, action in enumerate(beside["action"]):
        np.testing.assert_array_equal(seen["observation"][0], beside["observation"][t, 1])
        seen, _, _, _, _ = alone.step(action[1:2])


@pytest.mark.parametrize("name", TASKS)
def test_observation_and_distance_show_the_state_of_the_arm(name: str) -> None:
    env = ReachVectorEnv(name, 4, seed=0)
    env.reset()
    for _ in range(20):
        seen, reward, _, _, info = env.step(same_action(env, 0.5))
    codec, m, d = env.codec, env.task.controlled_joints, env.task.goal_dimensions
    np.testing.assert_allclose(codec.joint_position(seen["observation"]), env.joint_position[:, :m], atol=1e-6)
    np.testing.assert_allclose(codec.joint_velocity(seen["observation"]), env.joint_velocity[:, :m], atol=1e-5)
    np.testing.assert_allclose(codec.hand_position(seen["observation"]), env.hand_position[:, :d], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(env.hand_position[:, :d] - env.goal, axis=1), info["distance"])
    np.testing.assert_array_equal(reward, -info["distance"])


@pytest.mark.parametrize("name", TASKS)
def test_physics_is_that_of_a_single_simulation_with_the_same_torques(name: str) -> None:
    task = get_task(name)
    env = ReachVectorEnv(task, 2)
    env.reset(seed=5)
    start = env.joint_position
    action = np.random.default_rng(6).uniform(-1, 1, env.action_space.shape)
    for _ in range(10):
        env.step(action)

    model = task.arm.load_model()
    data = mujoco.MjData(model)
    law, limiter = TorqueLaw(task), TorqueLimiter(task.arm.limits, task.soft_limit_fraction)
    joints = [model.joint(joint) for joint in task.arm.joint_names]
    addresses, dofs = [j.qposadr[0] for j in joints], [j.dofadr[0] for j in joints]
    data.qpos[addresses] = start[1]
    previous = np.zeros(len(joints))
    for _ in range(10 * task.substeps):
        position, velocity = data.qpos[addresses], data.qvel[dofs]
        wanted = law.torque(action[1], position, velocity)
        torque = limiter.limit(wanted, previous, position, velocity, task.physics_period)
        data.ctrl[:] = previous  # one physics step late
        previous = torque
        mujoco.mj_step(model, data)
    np.testing.assert_array_equal(env.joint_position[1], data.qpos[addresses])
    np.testing.assert_array_equal(env.joint_velocity[1], data.qvel[dofs])


def one_torque_per_step(delay_steps: int) -> ReachTask:
    """The Panda task with a control period of one physics step, so that every torque shows in the info."""
    return dataclasses.replace(get_task("panda_reach"), control_period=0.002, delay_steps=delay_steps)


@pytest.mark.parametrize("delay_steps", [0, 1, 2, 5])
def test_torque_starts_after_the_delay(delay_steps: int) -> None:
    env = ReachVectorEnv(one_torque_per_step(delay_steps), 1)
    env.reset(options={"start": "home", "goals": [0.4, 0.0, 0.4]})
    torque = np.array([env.step(np.ones((1, 6)))[4]["torque"][0, 0] for _ in range(8)])
    np.testing.assert_array_equal(torque[:delay_steps], 0.0)
    assert torque[delay_steps] == pytest.approx(2.0)


def test_torque_never_changes_faster_than_the_rate_limit() -> None:
    task = one_torque_per_step(1)
    env = ReachVectorEnv(task, 4)
    torque = rollout(env, 300)["torque"]
    change = np.abs(np.diff(torque, axis=0, prepend=np.zeros((1, *torque.shape[1:]))))
    step = task.arm.limits.torque_rate * task.physics_period
    assert (change <= step + 1e-9).all()
    assert (change[..., :4] > step[:4] - 1e-9).any(), "random actions should meet the limit"


def test_rate_limit_shows_as_intervention_and_torque_rate() -> None:
    env = ReachVectorEnv("panda_reach", 1)
    env.reset(options={"start": "home", "goals": [0.4, 0.0, 0.4]})
    _, _, _, _, quiet = env.step(np.zeros((1, 6)))
    _, _, _, _, jump = env.step(np.ones((1, 6)))
    assert quiet["filter_intervened"] == pytest.approx([0.0])
    assert quiet["torque_rate"] == pytest.approx([0.0], abs=5.0)
    assert jump["filter_intervened"][0] >= 0.8
    assert jump["torque_rate"][0] > 500.0


def test_full_action_settles_at_the_velocity_limit() -> None:
    env = ReachVectorEnv("planar_reach", 1)
    env.reset(options={"start": [-2.0, 0.0], "goals": [0.5, 0.5]})
    speeds = []
    for _ in range(50):
        env.step(np.array([[1.0, 0.0]]))
        speeds.append(env.joint_velocity[0, 0])
    assert max(speeds) <= 1.02 * np.pi / 2
    assert max(speeds) >= 0.95 * np.pi / 2


@pytest.mark.parametrize("name", TASKS)
def test_arm_at_rest_stays_where_it_is_without_action(name: str) -> None:
    env = ReachVectorEnv(name, 5)
    env.reset(seed=0)
    start = env.hand_position
    for _ in range(env.task.steps_per_episode):
        env.step(same_action(env, 0.0))
    assert np.abs(env.hand_position - start).max() < 2e-3


def test_raw_gravity_pulls_the_arm_down() -> None:
    env = ReachVectorEnv(dataclasses.replace(get_task("panda_reach"), gravity_convention="raw"), 1)
    env.reset(options={"start": "home", "goals": [0.4, 0.0, 0.4]})
    start = env.hand_position[0, 2]
    for _ in range(20):
        env.step(same_action(env, 0.0))
    assert env.hand_position[0, 2] < start - 0.05


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_action_ends_its_own_episode_only(bad: float) -> None:
    env = ReachVectorEnv("panda_reach", 3)
    healthy = ReachVectorEnv("panda_reach", 3)
    seen, _ = env.reset(seed=0)
    healthy.reset(seed=0)
    for t in range(env.task.steps_per_episode):
        action = np.full((3, 6), 0.2 * np.sin(0.1 * t))
        expected, _, _, _, _ = healthy.step(action)
        if t == 10:
            action[1, 2] = bad
        seen, reward, terminated, truncated, info = env.step(action)
        assert terminated.tolist() == [False, t >= 10, False]
        for value in (seen["observation"], reward, *info.values()):
            assert np.isfinite(value).all()
    assert truncated.all()
    np.testing.assert_array_equal(seen["observation"][[0, 2]], expected["observation"][[0, 2]])
    np.testing.assert_allclose(env.joint_position[1], env.task.arm.home, atol=1e-3)
    _, _ = env.reset(seed=1)
    assert not env.step(np.zeros((3, 6)))[2].any()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a temporary folder: MuJoCo writes its warnings into a file in the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("elsewhere")
def test_an_absurd_velocity_ends_the_episode() -> None:
    env = ReachVectorEnv("panda_reach", 2)
    env.reset(seed=0, options={"start": "home"})
    env._qvel[1, 0] = 1e4
    seen, reward, terminated, _, info = env.step(np.zeros((2, 6)))
    assert terminated.tolist() == [False, True]
    for value in (seen["observation"], reward, *info.values()):
        assert np.isfinite(value).all()


@pytest.mark.usefixtures("elsewhere")
def test_a_broken_simulation_ends_the_episode() -> None:
    env = ReachVectorEnv("panda_reach", 2)
    env.reset(seed=0, options={"start": "home"})
    env._qpos[0, 3] = np.nan
    seen, reward, terminated, _, info = env.step(np.zeros((2, 6)))
    assert terminated.tolist() == [True, False]
    for value in (seen["observation"], reward, *info.values()):
        assert np.isfinite(value).all()
    assert not env.step(np.zeros((2, 6)))[2][1]


def test_an_error_of_mujoco_ends_the_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    env = ReachVectorEnv("panda_reach", 3)
    env.reset(seed=0)
    step = Batch.step

    def failing_step(batch: Batch) -> None:
        step(batch)
        monkeypatch.undo()
        raise SimulationError(np.array([2]), "stack overflow")

    monkeypatch.setattr(Batch, "step", failing_step)
    seen, reward, terminated, _, info = env.step(same_action(env, 0.1))
    assert terminated.tolist() == [False, False, True]
    for value in (seen["observation"], reward, *info.values()):
        assert np.isfinite(value).all()
    np.testing.assert_allclose(env.joint_position[2], env.task.arm.home, atol=1e-3)


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_makes_the_environment(env_id: str) -> None:
    assert spiking_controller.tasks.__name__ == "spiking_controller.tasks"
    env = gymnasium.make_vec(env_id, num_envs=4)
    assert isinstance(env.unwrapped, ReachVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    seen, info = env.reset(seed=11)
    again, _ = env.reset(seed=11)
    for key in seen:
        np.testing.assert_array_equal(seen[key], again[key])
    env.action_space.seed(0)
    for t in range(200):
        assert env.observation_space.contains(seen)
        seen, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert reward.shape == terminated.shape == truncated.shape == (4,)
        assert terminated.dtype == truncated.dtype == np.bool_
        assert truncated.all() == (t == 199)
    assert not terminated.any()
    assert info["distance"].shape == (4,)
    env.close()


def test_a_finished_episode_wants_a_reset() -> None:
    env = ReachVectorEnv("planar_reach", 2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="2 of 2"):
        env.step(np.zeros((2, 2)))
    env.reset(seed=0)
    for _ in range(200):
        env.step(np.zeros((2, 2)))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 2)))


def test_reset_mask_starts_only_the_chosen_episodes_anew() -> None:
    env = ReachVectorEnv("planar_reach", 3)
    env.reset(seed=0)
    for _ in range(50):
        env.step(np.full((3, 2), 0.3))
    position, goal = env.joint_position, env.goal
    env.reset(options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(env.joint_position[[0, 2]], position[[0, 2]])
    np.testing.assert_array_equal(env.goal[[0, 2]], goal[[0, 2]])
    assert (env.goal[1] != goal[1]).all()
    assert (env.joint_velocity[1] == 0).all()
    for _ in range(150):
        _, _, _, truncated, _ = env.step(np.zeros((3, 2)))
    assert truncated.tolist() == [True, False, True]


@pytest.mark.parametrize("start", ["home", "random"])
def test_starts_and_goals_can_be_given(start: str) -> None:
    env = ReachVectorEnv("panda_reach", 2, random_start=start == "random")
    env.reset(seed=0)
    assert (env.joint_position == env.task.arm.home).all() == (start == "home")
    given = np.tile(env.task.arm.home, (2, 1))
    given[:, 0] += [0.3, -0.3]
    goals = np.array([[0.4, 0.1, 0.5], [0.5, -0.1, 0.3]])
    seen, _ = env.reset(options={"start": given, "goals": goals})
    np.testing.assert_array_equal(env.joint_position, given)
    np.testing.assert_array_equal(seen["goal"], goals.astype(np.float32))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"start": "nowhere"}, ConfigError, "'nowhere'.*'home'"),
        ({"start": np.zeros(3)}, ConfigError, r"start.*\[3\].*\[2, 7\]"),
        ({"goals": np.zeros((4, 3))}, ConfigError, r"goals.*\[4, 3\].*\[2, 3\]"),
        ({"goals": [[0.4, 0.0, 0.4], [np.nan, 0.0, 0.4]]}, GoalError, "nan.*finite"),
        ({"goals": [3.0, 0.0, 0.4]}, GoalError, r"3\.0.*out of reach"),
        ({"reset_mask": np.ones(2)}, ConfigError, "reset_mask.*float64.*bool"),
        ({"gaols": np.zeros(3)}, ConfigError, "'gaols'.*goals"),
    ],
)
def test_a_wrong_reset_option_is_refused(options: dict[str, Any], error: type[Exception], says: str) -> None:
    env = ReachVectorEnv("panda_reach", 2, seed=0)
    with pytest.raises(error, match=says):
        env.reset(options=options)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_envs is 0"):
        ReachVectorEnv("panda_reach", 0)
    with pytest.raises(ConfigError, match="no task 'pick_up'"):
        ReachVectorEnv("pick_up", 1)
    env = ReachVectorEnv("panda_reach", 2)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"\[2, 7\].*\[2, 6\]"):
        env.step(np.zeros((2, 7)))
