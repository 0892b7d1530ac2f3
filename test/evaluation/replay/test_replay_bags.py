"""Bags from elsewhere: whatever they hold, replay gives figures or one clear sentence."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from spiking_controller import cli
from spiking_controller.commands.replay import replay
from spiking_controller.errors import ConfigError
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.gravity import GravityModel
from spiking_controller.robots.simulation import ArmSimulation
from spiking_controller.streams.bag_segments import find_bags, read_segments
from spiking_controller.streams.bag_stream import StreamOptions
from spiking_controller.streams.bag_writer import BagWriter
from spiking_controller.tasks.reach import get_task
from spiking_controller.tasks.torque import TorqueLaw

TYPES = get_typestore(Stores.ROS2_JAZZY)
JOINT_STATE = "sensor_msgs/msg/JointState"
ARM = get_arm("panda")
TASK = get_task("panda_reach")
SECONDS = 4.0
EPOCH = 1_700_000_000_000_000_000
"""A real arm's stamps count from 1970, ns."""
NO_OPTIONS = StreamOptions()

Array = NDArray[np.float64]


@dataclass(frozen=True)
class State:
    """A joint state; velocity and effort may be empty."""

    time: int
    names: tuple[str, ...]
    position: Array
    velocity: Array
    effort: Array

    def serialised(self) -> bytes:
        kinds = TYPES.types
        header = kinds["std_msgs/msg/Header"](
            stamp=kinds["builtin_interfaces/msg/Time"](*divmod(self.time, 1_000_000_000)), frame_id=""
        )
        message = kinds[JOINT_STATE](
            header=header, name=list(self.names), position=self.position, velocity=self.velocity, effort=self.effort
        )
        return bytes(TYPES.serialize_cdr(message, JOINT_STATE))


def simulated(rate: float, seconds: float = SECONDS) -> list[State]:
    """The arm under smooth random actions, with the torque law of the task, as a driver of that rate tells it."""
    period = min(0.002, 1.0 / rate)
    simulation = ArmSimulation(ARM, period)
    law = TorqueLaw(TASK)
    rng = np.random.default_rng(5)
    frequency, phase = rng.uniform(0.3, 1.2, 6), rng.uniform(0.0, 2 * np.pi, 6)
    every = round(1.0 / rate / period)
    states = []
    for step in range(round(seconds / period)):
        reading = simulation.reading
        if step % every == 0:
            time = EPOCH + simulation.time
            states.append(State(time, ARM.joint_names, reading.position, reading.velocity, reading.effort))
        # Held for a control period, as the networks' actions are.
        held = TASK.control_period * np.floor(step * period / TASK.control_period)
        action = 0.4 * np.sin(2 * np.pi * frequency * held + phase)
        simulation.advance(law.torque(action, reading.position, reading.velocity))
    return states


@pytest.fixture(scope="module")
def states() -> list[State]:
    return simulated(500.0)


Change = Callable[[State], State]


def write(
    folder: Path,
    states: Sequence[State],
    storage: str = "mcap",
    topic: str = "/joint_states",
    received: Callable[[State], int] = lambda state: state.time,
) -> Path:
    bag = BagWriter(folder, storage, {}, 2**30)
    connection = bag.add_topic(topic, JOINT_STATE, [])
    for state in states:
        bag.write(connection, received(state), state.serialised())
    bag.close()
    return folder


def judged(path: Path, options: StreamOptions = NO_OPTIONS) -> dict[str, Any]:
    evaluator, _ = replay(path, [], options)
    return evaluator.metrics()


def error(metrics: dict[str, Any], steps: int = 10) -> float:
    return float(metrics["checkpoints"][0]["forward_model"]["horizons"][str(steps)]["joint_rad"])


@pytest.fixture(scope="module")
def reference(states: list[State], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Figures of the plain bag."""
    return judged(write(tmp_path_factory.mktemp("plain") / "bag", states))


def test_a_bag_with_nothing_but_joint_states_gives_figures(reference: dict[str, Any]) -> None:
    stream = reference["stream"]
    assert stream["joint_states"]["used"] == 2000
    assert stream["torques"] == "measured"
    assert not stream["torques_include_gravity"]
    assert stream["control_steps"] == 199
    baselines = reference["baselines"]
    assert error(reference) < min(baselines[name]["10"]["joint_rad"] for name in ("stay", "linear"))
    policy = reference["checkpoints"][0]["policy"]
    assert policy["compared_steps"] == 199
    assert policy["torque_difference_rms"] > 0.0
    assert policy["torques"] == 2000
    assert reference["goals"]["goals"] == 0
    assert reference["checkpoints"][0]["activity"]["policy"]["effective_acs"] > 0


def permuted_with_fingers(state: State) -> State:
    order = [3, 0, 8, 6, 1, 7, 5, 2, 4]
    names = (*state.names, "panda_finger_joint1", "panda_finger_joint2")
    parts = (np.append(part, [0.04, 0.04])[order] for part in (state.position, state.velocity, state.effort))
    return State(state.time, tuple(names[index] for index in order), *parts)


def other_names(state: State) -> State:
    return replace(state, names=tuple(name.replace("panda", "left") for name in state.names))


def test_the_joints_of_a_bag_tell_the_arm_whose_networks_are_judged(states: list[State], tmp_path: Path) -> None:
    for arm in ("panda", "fr3"):
        named = [replace(state, names=get_arm(arm).joint_names) for state in states[:500]]
        evaluator, _ = replay(write(tmp_path / arm, named), [], NO_OPTIONS)
        assert evaluator.metrics()["checkpoints"][0]["source"] == str(get_arm(arm).checkpoint)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("change", [permuted_with_fingers, other_names])
def test_order_company_and_names_of_the_joints_change_nothing(
    states: list[State], reference: dict[str, Any], tmp_path: Path, change: Change, storage: str
) -> None:
    assert judged(write(tmp_path / "bag", [change(state) for state in states], storage)) == reference


def test_names_that_do_not_speak_for_themselves_are_given(
    states: list[State], reference: dict[str, Any], tmp_path: Path
) -> None:
    names = ("base", "shoulder", "upper", "elbow", "lower", "wrist", "flange")
    path = write(tmp_path / "bag", [replace(state, names=names) for state in states])
    with pytest.raises(ConfigError, match=r"/joint_states has base, elbow, .* with --joint-names"):
        judged(path)
    assert judged(path, StreamOptions(joint_names=names)) == reference


def test_velocities_that_are_missing_are_estimated(
    states: list[State], reference: dict[str, Any], tmp_path: Path
) -> None:
    metrics = judged(write(tmp_path / "bag", [replace(state, velocity=np.empty(0)) for state in states]))
    assert metrics["stream"]["joint_states"]["estimated_velocities"] == 2000
    assert error(metrics) < metrics["baselines"]["stay"]["10"]["joint_rad"]


def test_velocities_that_contradict_the_angles_are_named(states: list[State], tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path / "bag", [replace(state, velocity=np.zeros_like(state.velocity)) for state in states])
    (sentence,) = judged(path)["stream"]["joint_states"]["implausible"].values()
    assert "tells 0.00 rad/s of panda_joint" in sentence
    assert cli.main(["replay", str(path)]) == 0
    assert sentence[1:] in capsys.readouterr().out


def test_efforts_that_are_nan_are_counted_and_leave_the_rest(states: list[State], tmp_path: Path) -> None:
    spoilt = [
        replace(state, effort=np.full(7, np.nan)) if 1000 <= index < 1100 else state
        for index, state in enumerate(states)
    ]
    metrics = judged(write(tmp_path / "bag", spoilt))
    assert metrics["stream"]["dropped"]["torque that is not finite"] == 100
    assert metrics["stream"]["joint_states"]["used"] == 2000
    assert metrics["stream"]["dropped"]["control step without a torque"] == 5  # the last one holds for 0.1 s
    assert metrics["checkpoints"][0]["forward_model"]["following_steps"] == 194


@pytest.mark.parametrize("effort", [np.empty(0), np.full(7, np.nan), np.zeros(7)])
def test_without_efforts_the_policy_is_judged_and_the_model_is_not(
    states: list[State], tmp_path: Path, effort: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "bag", [replace(state, effort=effort) for state in states])
    assert cli.main(["replay", str(path)]) == 0
    assert "has no efforts and there is no topic of torques" in capsys.readouterr().out
    metrics = judged(path)
    assert metrics["checkpoints"][0]["forward_model"]["horizons"] == {}
    assert metrics["checkpoints"][0]["policy"]["torques"] == 2000
    assert metrics["checkpoints"][0]["policy"]["torque_difference_rms"] is None


@pytest.mark.parametrize("rate", [30.0, 1000.0])
def test_slow_and_fast_drivers_give_figures(rate: float, reference: dict[str, Any], tmp_path: Path) -> None:
    metrics = judged(write(tmp_path / "bag", simulated(rate)))
    assert metrics["stream"]["rate_hz"] == pytest.approx(rate, rel=0.05)
    assert metrics["stream"]["control_steps"] == pytest.approx(198, abs=3)
    assert metrics["stream"]["stretches"] == 1
    assert error(metrics) < metrics["baselines"]["stay"]["10"]["joint_rad"]
    if rate > 500.0:
        assert error(metrics) == pytest.approx(error(reference), rel=0.2)


def test_a_driver_that_is_too_slow_is_named(states: list[State], tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path / "bag", states[::100])
    assert cli.main(["replay", str(path)]) == 0
    assert "There is not one control step" in capsys.readouterr().out


def with_gravity(states: Sequence[State]) -> list[State]:
    gravity = GravityModel(ARM)
    return [replace(state, effort=state.effort + gravity.torque(state.position)) for state in states]


def test_gravity_in_the_efforts_is_found_and_taken_out(
    states: list[State], reference: dict[str, Any], tmp_path: Path
) -> None:
    metrics = judged(write(tmp_path / "bag", with_gravity(states)))
    assert metrics["stream"]["torques_include_gravity"]
    for steps in (1, 10, 50):
        assert error(metrics, steps) == pytest.approx(error(reference, steps), rel=1e-3)


def test_gravity_is_believed_as_declared(states: list[State], reference: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "bag", with_gravity(states))
    denied = judged(path, StreamOptions(effort="without-gravity"))
    assert not denied["stream"]["torques_include_gravity"]
    assert error(denied) > 2 * error(reference)
    declared = judged(path, StreamOptions(effort="with-gravity"))
    assert error(declared) == pytest.approx(error(reference), rel=1e-3)


def test_the_weight_is_that_of_the_simulated_arm() -> None:
    simulation = ArmSimulation(ARM, gravity_compensation=False)
    gravity = GravityModel(ARM)
    for _ in range(250):
        simulation.advance(gravity.torque(simulation.joint_position))
    np.testing.assert_allclose(simulation.joint_position, ARM.home, atol=1e-3)


@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.FILE, CompressionMode.STORAGE])
@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_zstd_is_read(
    states: list[State], reference: dict[str, Any], tmp_path: Path, mode: CompressionMode, plugin: StoragePlugin
) -> None:
    if plugin is StoragePlugin.SQLITE3 and mode is CompressionMode.STORAGE:
        mode = CompressionMode.NONE  # a database has no compression of its own
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/joint_states", JOINT_STATE, typestore=TYPES)
        for state in states:
            writer.write(connection, state.time, state.serialised())
    assert judged(tmp_path / "bag") == reference


def test_single_files_are_bags_too(states: list[State], reference: dict[str, Any], tmp_path: Path) -> None:
    assert judged(write(tmp_path / "mcap", states) / "mcap_0.mcap") == reference
    assert judged(write(tmp_path / "sqlite", states, "sqlite3") / "sqlite_0.db3") == reference


def test_messages_without_a_stamp_have_the_time_of_their_receipt(
    states: list[State], reference: dict[str, Any], tmp_path: Path
) -> None:
    times = iter([state.time for state in states])
    path = write(tmp_path / "bag", [replace(state, time=0) for state in states], received=lambda _: next(times))
    evaluator, stream = replay(path, [], NO_OPTIONS)
    assert evaluator.metrics() == reference
    assert stream.unstamped == {"/joint_states": 2000}


def test_what_cannot_be_used_is_counted_by_reason(states: list[State], tmp_path: Path) -> None:
    fingers = State(states[600].time + 1, ("panda_finger_joint1",), np.zeros(1), np.zeros(1), np.zeros(1))
    absurd = replace(states[700], time=states[700].time + 1, position=np.full(7, 100.0))
    spoilt = [*states[:601], fingers, *states[601:701], absurd, states[700], *states[701:]]
    dropped = judged(write(tmp_path / "bag", spoilt))["stream"]["dropped"]
    assert dropped["joint state: other joints"] == 1
    assert dropped["joint state: absurd position"] == 1
    assert dropped["joint state: repeated stamp"] == 1


def test_the_topic_with_the_arm_is_found_and_can_be_named(
    states: list[State], reference: dict[str, Any], tmp_path: Path
) -> None:
    bag = BagWriter(tmp_path / "bag", "mcap", {}, 2**30)
    topics = [bag.add_topic(name, JOINT_STATE, []) for name in ("/gripper/joint_states", "/arm/measured", "/a/b/c")]
    gripper = State(EPOCH, ("panda_finger_joint1",), np.zeros(1), np.zeros(1), np.zeros(1))
    bag.write(topics[0], EPOCH, gripper.serialised())
    for state in states:
        bag.write(topics[1], state.time, state.serialised())
        bag.write(topics[2], state.time, state.serialised())
    bag.close()
    evaluator, stream = replay(tmp_path / "bag", [], NO_OPTIONS)
    assert stream.topics.joint_states == "/a/b/c"
    assert any("joint states are those of /a/b/c" in note for note in stream.notes)
    assert stream.left_out == {"/arm/measured": 2000, "/gripper/joint_states": 1}
    assert evaluator.metrics() == reference
    assert judged(tmp_path / "bag", StreamOptions(joint_states="/arm/measured")) == reference
    for options in (StreamOptions(joint_states="/none"), StreamOptions(torque="/none"), StreamOptions(goal="/none")):
        with pytest.raises(ConfigError, match="/none is no topic of"):
            judged(tmp_path / "bag", options)


@pytest.fixture
def write_topics(states: list[State], tmp_path: Path) -> Callable[..., Path]:
    """A bag with the arm on several topics: each with so many of the states, and what they are changed to."""

    def write_bag(**topics: tuple[int, Change]) -> Path:
        bag = BagWriter(tmp_path / "bag", "mcap", {}, 2**30)
        for name, (every, change) in topics.items():
            topic = bag.add_topic(f"/{name.replace('__', '/')}", JOINT_STATE, [])
            for state in states[::every]:
                bag.write(topic, state.time, change(state).serialised())
        bag.close()
        return tmp_path / "bag"

    return write_bag


def as_it_is(state: State) -> State:
    return state


def without_positions(state: State) -> State:
    return replace(state, position=np.empty(0))


def without_the_hand(state: State) -> State:
    return State(state.time, state.names[:6], state.position[:6], state.velocity[:6], state.effort[:6])


@pytest.mark.parametrize(
    ("topics", "taken", "why"),
    [
        (
            {"measured_joint_states": (1, as_it_is), "desired_joint_states": (1, as_it_is)},
            "/measured_joint_states",
            "/measured_joint_states (500 Hz), rather than of /desired_joint_states (by its name not measured, 500 Hz)",
        ),
        (
            {"measured_joint_states": (10, as_it_is), "command__joint_states": (1, as_it_is)},
            "/measured_joint_states",
            "/measured_joint_states (50 Hz), rather than of /command/joint_states (by its name not measured, 500 Hz)",
        ),
        (
            {"joint_states": (16, as_it_is), "franka__joint_states": (1, as_it_is)},
            "/franka/joint_states",
            "/franka/joint_states (500 Hz), rather than of /joint_states (31 Hz): measured ones come before desired "
            "ones, then the fastest, then the simplest name; --joint-states names another topic.",
        ),
        (
            {"joint_states": (2, as_it_is), "franka__joint_states": (1, without_positions)},
            "/joint_states",
            None,
        ),
        ({"joint_states": (2, as_it_is), "arm__joint_states": (1, without_the_hand)}, "/joint_states", None),
        ({"joint_states": (1, as_it_is), "franka__states": (1, as_it_is)}, "/joint_states", "/joint_states (500 Hz)"),
        ({"arm_commander__joint_states": (1, as_it_is), "a__goal": (1, as_it_is)}, "/arm_commander/joint_states", ""),
        ({"joint_targets": (1, as_it_is)}, "/joint_targets", "/joint_targets, which by its name are not measured"),
    ],
)
def test_measured_and_fast_joint_states_are_taken_and_the_report_says_why(
    write_topics: Callable[..., Path], topics: dict[str, tuple[int, Change]], taken: str, why: str | None
) -> None:
    _, stream = replay(write_topics(**topics), [], NO_OPTIONS)
    assert stream.topics.joint_states == taken
    reasons = [note for note in stream.notes if note.startswith("joint states are those of ")]
    assert len(reasons) == (why is not None)
    if why is not None:
        assert why in reasons[0]


def test_topics_of_the_controller_are_found_around_the_joint_states(states: list[State], tmp_path: Path) -> None:
    bag = BagWriter(tmp_path / "bag", "mcap", {}, 2**30)
    arm, torque = (bag.add_topic(name, JOINT_STATE, []) for name in ("/franka/joint_states", "/controller/torque"))
    for state in states:
        bag.write(arm, state.time, replace(state, effort=np.empty(0)).serialised())
        empty = np.empty(0)
        bag.write(torque, state.time, replace(state, position=empty, velocity=empty).serialised())
    bag.close()
    _, stream = replay(tmp_path / "bag", [], NO_OPTIONS)
    assert stream.topics.torque == "/controller/torque"


def test_a_goal_can_be_given_to_the_policy(states: list[State], tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path / "bag", states)
    assert cli.main(["replay", str(path), "--goal", "0.4", "0.3", "0.4"]) == 0
    told = capsys.readouterr().out
    assert "holds no goals" not in told
    assert cli.main(["replay", str(path)]) == 0
    asked = capsys.readouterr().out
    assert "The bag holds no goals: the policy holds the hand where it is; --goal gives it one." in asked
    assert told.splitlines()[-10:] != asked.splitlines()[-10:]


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """Replays through the command line, which must end with one sentence on stderr."""

    def run(path: Path) -> str:
        assert cli.main(["replay", str(path)]) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ")
        assert len(text.splitlines()) == 1
        return text

    return run


def test_an_empty_bag_is_named(tmp_path: Path, error_of: Callable[[Path], str]) -> None:
    BagWriter(tmp_path / "bag", "mcap", {}, 2**30).close()
    assert "is empty: it holds no message" in error_of(tmp_path / "bag")


def test_a_bag_without_joint_states_is_named(tmp_path: Path, error_of: Callable[[Path], str]) -> None:
    bag = BagWriter(tmp_path / "bag", "mcap", {}, 2**30)
    topic: Connection = bag.add_topic("/number", "std_msgs/msg/Float64", [])
    message = TYPES.types["std_msgs/msg/Float64"](data=1.0)
    bag.write(topic, EPOCH, bytes(TYPES.serialize_cdr(message, "std_msgs/msg/Float64")))
    bag.close()
    assert "holds no sensor_msgs/JointState (only std_msgs/msg/Float64)" in error_of(tmp_path / "bag")


def edit_topic(folder: Path, **changes: Any) -> None:
    """Change what metadata.yaml says of the joint states."""
    file = folder / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    (entry,) = content["rosbag2_bagfile_information"]["topics_with_message_count"]
    entry["topic_metadata"] |= changes
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_with_an_edited_quality_of_service_gives_the_same_figures(
    states: list[State], reference: dict[str, Any], tmp_path: Path, storage: str
) -> None:
    path = write(tmp_path / "bag", states, storage)
    forever = {"sec": 9223372036, "nsec": 854775807}
    times = dict.fromkeys(("deadline", "lifespan", "liveliness_lease_duration"), forever)
    kinds = {"history": "keep_last", "reliability": "best_effort", "durability": "volatile", "liveliness": "automatic"}
    offer = {"depth": 5, "avoid_ros_namespace_conventions": False, **kinds, **times}
    edit_topic(path, offered_qos_profiles=[offer])
    assert judged(path) == reference


def test_a_topic_that_metadata_alone_knows_is_named(
    states: list[State], tmp_path: Path, error_of: Callable[[Path], str]
) -> None:
    path = write(tmp_path / "bag", states)
    edit_topic(path, name="/arm/joint_states")
    assert "metadata.yaml names /arm/joint_states with messages of sensor_msgs/msg/JointState, which" in error_of(path)


def test_a_ros_1_bag_is_read_once_converted_as_advised(
    states: list[State], tmp_path: Path, error_of: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = get_typestore(Stores.ROS1_NOETIC)
    with Ros1Writer(tmp_path / "run.bag") as writer:
        connection = writer.add_connection("/joint_states", JOINT_STATE, typestore=kinds)
        for number, state in enumerate(states):
            header = kinds.types["std_msgs/msg/Header"](
                seq=number,
                stamp=kinds.types["builtin_interfaces/msg/Time"](*divmod(state.time, 1_000_000_000)),
                frame_id="",
            )
            parts = {"position": state.position, "velocity": state.velocity, "effort": state.effort}
            message = kinds.types[JOINT_STATE](header=header, name=list(state.names), **parts)
            writer.write(connection, state.time, kinds.serialize_ros1(message, JOINT_STATE))
    command, folder = re.findall(r"`(.*)` and give (.*)\.$", error_of(tmp_path / "run.bag").strip())[0]
    program, *arguments = shlex.split(command)
    subprocess.run([str(Path(sys.executable).with_name(program)), *arguments], check=True)
    assert cli.main(["replay", folder]) == 0
    assert "2000 joint states of /joint_states" in capsys.readouterr().out


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_file_that_was_cut_off_ends_in_a_sentence(
    states: list[State], tmp_path: Path, storage: str, share: float, error_of: Callable[[Path], str]
) -> None:
    path = write(tmp_path / "bag", states, storage)
    file = next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
    with file.open("r+b") as handle:
        handle.truncate(int(share * file.stat().st_size))
    for cut in (path, file):
        assert "cannot be read" in error_of(cut)


def test_a_damaged_chunk_ends_in_a_sentence(
    states: list[State], tmp_path: Path, error_of: Callable[[Path], str]
) -> None:
    file = write(tmp_path / "bag", states) / "bag_0.mcap"
    data = bytearray(file.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 400] = bytes(400)
    file.write_bytes(data)
    assert "a message on /joint_states is no sensor_msgs/msg/JointState" in error_of(tmp_path / "bag")


def test_what_is_no_bag_ends_in_a_sentence(tmp_path: Path, error_of: Callable[[Path], str]) -> None:
    assert "is not a bag" in error_of(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("no bag")
    assert "cannot be read" in error_of(tmp_path / "notes.txt")
    assert "is not a bag" in error_of(tmp_path)


def test_a_message_that_is_no_joint_state_ends_in_a_sentence(
    states: list[State], tmp_path: Path, error_of: Callable[[Path], str]
) -> None:
    bag = BagWriter(tmp_path / "bag", "mcap", {}, 2**30)
    bag.write(bag.add_topic("/joint_states", JOINT_STATE, []), EPOCH, states[0].serialised()[:40])
    bag.close()
    assert "a message on /joint_states is no sensor_msgs/msg/JointState" in error_of(tmp_path / "bag")


def test_segments_for_training_are_whole_and_true(states: list[State], tmp_path: Path) -> None:
    long = simulated(500.0, 9.0)
    found = read_segments(write(tmp_path / "bag", long), TASK)
    assert len(found.segments) == 2
    assert found.dropped["control step in a stretch that is too short"] == 49
    first, second = found.segments
    assert first.observation.shape == (TASK.steps_per_episode + 1, 15)
    np.testing.assert_array_equal(first.observation[-1], second.observation[0])
    np.testing.assert_array_equal(second.previous_action, first.action[-1])
    np.testing.assert_array_equal(first.goal, first.observation[-1, 12:])
    # The actions that the arm was given, up to the delay of the measured torque.
    rng = np.random.default_rng(5)
    frequency, phase = rng.uniform(0.3, 1.2, 6), rng.uniform(0.0, 2 * np.pi, 6)
    time = TASK.control_period * np.arange(TASK.steps_per_episode)
    given = 0.4 * np.sin(2 * np.pi * frequency * time[:, None] + phase)
    np.testing.assert_allclose(first.action, given, atol=0.02)


def test_bags_are_found_in_folders(states: list[State], tmp_path: Path) -> None:
    write(tmp_path / "runs" / "b", states[:10])
    write(tmp_path / "runs" / "deep" / "a", states[:10], "sqlite3")
    shutil.copy(tmp_path / "runs" / "b" / "b_0.mcap", tmp_path / "runs" / "loose.mcap")
    found = [tmp_path / "runs" / name for name in ("b", "deep/a", "loose.mcap")]
    assert find_bags([tmp_path / "runs"]) == found
    assert find_bags([found[0], found[2]]) == [found[0], found[2]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no bag"):
        find_bags([tmp_path / "empty"])
