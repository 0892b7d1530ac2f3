"""Segments rebuilt from the graph's messages: the controller's own actions, and nothing that is not whole."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample
from spiking_controller.streams.segments import SegmentBuilder
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import get_task
from spiking_controller.tasks.segments import Segment
from spiking_controller.tasks.torque import TorqueLaw

TASK = get_task("panda_reach")
MS = 1_000_000
STEPS = 8


class Graph:
    """What a controller and a moving arm publish, a joint state every 2 ms and a control step every 20 ms."""

    def __init__(self, steps: int, start: int = 0) -> None:
        rng = np.random.default_rng(0)
        home = np.asarray(TASK.arm.home)
        law = TorqueLaw(TASK)
        self.action = rng.uniform(-0.9, 0.9, (steps, TASK.controlled_joints))
        self.samples: list[ArmSample] = []
        self.torques: list[NDArray[np.float64]] = []
        for index in range(10 * steps):
            velocity = rng.uniform(-0.5, 0.5, home.size)
            position = home + 0.1 * rng.standard_normal(home.size)
            self.samples.append(ArmSample(start + 2 * MS * index, 0.002, index > 0, position, velocity))
            self.torques.append(law.torque(self.action[index // 10], position, velocity))

    def observation(self, step: int) -> NDArray[np.float64]:
        sample = self.samples[10 * step]
        hand = TASK.arm.chain.position(sample.joint_position)
        return ObservationCodec(TASK).encode(sample.joint_position, sample.joint_velocity, hand)

    def play(self, builder: SegmentBuilder, lost: frozenset[tuple[str, int]] = frozenset()) -> Iterator[Segment]:
        """Publish everything but what is lost, given as (kind, index); yields the segments."""
        for index, (sample, torque) in enumerate(zip(self.samples, self.torques, strict=True)):
            if ("state", index) not in lost:
                builder.add_state(sample)
            if index % 10 == 0 and ("prediction", index) not in lost:
                # Early: its joint state has come, its torque is still on the way.
                segment = builder.add_prediction(sample.time + 20 * MS)
                if segment is not None:
                    yield segment
            if ("torque", index) not in lost:
                builder.add_torque(sample.time, torque)


def with_goal(goal: tuple[float, float, float] = (0.4, 0.1, 0.5)) -> SegmentBuilder:
    builder = SegmentBuilder(TASK, STEPS)
    builder.add_goal(goal)
    return builder


def test_segments_hold_the_observations_and_actions_of_the_controllers_own_steps() -> None:
    graph = Graph(3 * STEPS, start=4 * MS)
    builder = with_goal()
    segments = list(graph.play(builder))
    assert len(segments) == builder.segments == 2
    assert not builder.dropped
    for number, segment in enumerate(segments):
        first = 1 + number * STEPS
        np.testing.assert_allclose(segment.action, graph.action[first : first + STEPS], atol=1e-6)
        np.testing.assert_allclose(segment.previous_action, graph.action[first - 1], atol=1e-6)
        wanted = [graph.observation(step) for step in range(first, first + STEPS + 1)]
        np.testing.assert_allclose(segment.observation, wanted, atol=1e-6)
        np.testing.assert_allclose(segment.goal, (0.4, 0.1, 0.5), atol=1e-6)


def test_a_lost_torque_is_made_good_by_another_one_of_the_same_step() -> None:
    graph = Graph(2 * STEPS)
    lost = frozenset(("torque", index) for index in range(160) if index % 10 != 3)
    segments = list(graph.play(with_goal(), lost))
    assert len(segments) == 1
    np.testing.assert_allclose(segments[0].action, graph.action[1 : STEPS + 1], atol=1e-6)


def test_segments_with_gaps_are_dropped_and_counted() -> None:
    for lost, reason in (
        (frozenset({("state", 50)}), "missing joint state"),
        (frozenset(("torque", index) for index in range(50, 60)), "missing torque"),
        (frozenset({("prediction", 50)}), "missing control step"),
    ):
        builder = with_goal()
        segments = list(Graph(3 * STEPS).play(builder, lost))
        assert dict(builder.dropped) == {reason: 1}
        assert len(segments) == 1, "the rest is whole again"


def test_a_jump_of_time_starts_anew() -> None:
    builder = with_goal()
    assert not list(Graph(STEPS).play(builder))
    assert len(list(Graph(2 * STEPS).play(builder))) == 1
    assert dict(builder.dropped) == {"time jumped back": 1}


def test_a_segment_is_on_the_way_to_one_goal() -> None:
    builder = with_goal()
    assert not list(Graph(STEPS).play(builder))
    builder.add_goal((0.5, 0.0, 0.4))
    segments = list(Graph(2 * STEPS, start=STEPS * 20 * MS).play(builder))
    assert dict(builder.dropped) == {"goal changed": 1}
    np.testing.assert_allclose(segments[0].goal, (0.5, 0.0, 0.4), atol=1e-6)


def test_nothing_is_recorded_before_there_is_a_goal_and_the_buffers_stay_bounded() -> None:
    builder = SegmentBuilder(TASK, STEPS)
    assert not list(Graph(3 * STEPS).play(builder))
    for index in range(20000):
        builder.add_state(ArmSample(index, 0.0, True, np.zeros(7), np.zeros(7)))
        builder.add_torque(index, np.zeros(7))
    assert len(builder._states) == len(builder._torques) == 5000


def test_actions_are_the_networks_own_without_what_was_taken_off() -> None:
    taken_off = np.array([1.0, -8.0, 0.5, 3.0, 0.0, -0.2])
    noticed, settled = STEPS + 3, STEPS + 23
    steps = settled + 2 * STEPS
    graph = Graph(steps)
    for torque in graph.torques[10 * noticed :]:
        torque[:6] -= taken_off
    builder = with_goal()
    for step in range(steps):
        builder.add_disturbance(20 * MS * step, taken_off if step >= noticed else np.zeros(6))
    first, second = graph.play(builder)
    np.testing.assert_allclose(first.action, graph.action[1 : 1 + STEPS], atol=1e-6)
    np.testing.assert_allclose(second.action, graph.action[settled + 1 : settled + 1 + STEPS], atol=1e-6)
    np.testing.assert_allclose(second.previous_action, graph.action[settled], atol=1e-6)
    assert dict(builder.dropped) == {"disturbance just noticed": 1}, "until it was known how much it is"
