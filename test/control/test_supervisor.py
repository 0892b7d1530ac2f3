"""The controller's states, without a graph: when it drives, when it stops, and what others hear of it."""

from itertools import pairwise

import numpy as np
import pytest

from spiking_controller.control.activity import FAULT, IDLE, REACHING, ActivityTracker
from spiking_controller.control.arm_state import ArmStateReader
from spiking_controller.control.controller import Command, Controller, ControllerSettings
from spiking_controller.control.fault import Fault
from spiking_controller.control.safety import SafetyFilter
from spiking_controller.control.state_stream import StateStream
from spiking_controller.control.supervisor import (
    MANY_OTHERS,
    MOST_MISSED,
    ActivityChanged,
    FaultBegan,
    FaultEnded,
    Instant,
    Supervisor,
    Timeouts,
)
from spiking_controller.tasks.reach import get_task
from test.control.test_controller import ScriptedNetworks

TASK = get_task("panda_reach")
HOME = np.asarray(TASK.arm.home)
MS = 1_000_000
START = Instant(0.0, 0.0)
NAMES = TASK.arm.joint_names
GRAVITY = Fault("gravity convention", "the robot does not carry its own weight.")


@pytest.fixture
def supervisor() -> Supervisor:
    """Networks that always ask for the full torque, no soft start."""
    limits = TASK.arm.limits
    networks = ScriptedNetworks(1.0)
    controller = Controller(TASK, networks, ControllerSettings(soft_start=0.0), SafetyFilter(limits))
    stream = StateStream(NAMES, limits, TASK.control_period, 0.002)
    timeouts = Timeouts(node=0.1, steady=2.0)
    return Supervisor(controller, ArmStateReader(NAMES, limits), stream, ActivityTracker(0.02), timeouts)


class Driver:
    """Sends joint states of a resting arm with a noisy encoder, every 2 ms."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.time = 0

    def send(self, count: int = 1, period: int = 2 * MS) -> list[Command | None]:
        answers = []
        for _ in range(count):
            self.time += period
            answers.append(self.supervisor.receive(self.time, NAMES, HOME + 1e-7 * (self.time % 3), np.zeros(7)))
            if answers[-1] is not None and answers[-1].new_step:
                self.supervisor.report()
        return answers


@pytest.fixture
def driver(supervisor: Supervisor) -> Driver:
    return Driver(supervisor)


def test_an_inactive_controller_looks_and_sends_nothing(driver: Driver) -> None:
    assert driver.send(20) == [None] * 20
    assert driver.supervisor.fresh_states == 20


def test_an_active_controller_answers_every_state(driver: Driver) -> None:
    assert driver.supervisor.activate(START) is None
    answers = driver.send(20)
    assert all(answer is not None and np.isfinite(answer.torque).all() for answer in answers)
    assert sum(answer.new_step for answer in answers if answer) == 2


def test_it_stays_inactive_where_the_latest_state_is_of_no_use(driver: Driver) -> None:
    driver.supervisor.receive(1, NAMES[1:], HOME[1:], np.zeros(6))
    refused = driver.supervisor.activate(START)
    assert refused is not None
    assert "lacks panda_joint1" in refused.sentence
    driver.send()
    assert driver.supervisor.activate(START) is None


def test_messages_about_other_joints_are_none_of_its_business_unless_there_are_no_others(driver: Driver) -> None:
    supervisor = driver.supervisor
    for sent in range(2 * MANY_OTHERS):
        supervisor.receive(sent, ["finger"], [0.0], [0.0])
        if sent % 3 == 0:
            driver.send()
        assert supervisor.latest_rejection is None
    for sent in range(MANY_OTHERS):
        supervisor.receive(sent, ["finger"], [0.0], [0.0])
    refused = supervisor.activate(START)
    assert refused is not None
    assert "lacks panda_joint1" in refused.sentence


def test_it_stays_inactive_while_the_graph_forbids_it(driver: Driver) -> None:
    driver.supervisor.outside_problem("gravity", GRAVITY, is_misfit=True)
    assert driver.supervisor.activate(START) == GRAVITY
    driver.supervisor.outside_problem("gravity", None)
    driver.supervisor.outside_problem("rivals", Fault("two publishers", "stop one."))
    assert driver.supervisor.activate(START) is None
    assert driver.send() == [None]


def test_a_fault_ramps_the_torque_to_zero_and_control_resumes_when_the_reason_is_gone(driver: Driver) -> None:
    supervisor = driver.supervisor
    supervisor.activate(START)
    driver.send(20)
    supervisor.take_events()
    supervisor.outside_problem("gravity", GRAVITY)
    assert driver.send(3) == [None] * 3
    assert supervisor.take_events() == [FaultBegan(GRAVITY, has_torque=True), ActivityChanged()]
    assert supervisor.activity.now.state == FAULT
    assert supervisor.activity.now.reason == GRAVITY.sentence
    ramp = [supervisor.ramp(0.002 * call) for call in range(50)]
    assert ramp[0].torque.any()
    assert not ramp[-1].torque.any()
    assert [later.time - sooner.time for sooner, later in pairwise(ramp)] == [2 * MS] * 49
    supervisor.outside_problem("gravity", None)
    assert driver.send()[0] is not None
    assert FaultEnded() in supervisor.take_events()
    assert supervisor.fault is None


def test_a_late_ramp_makes_up_for_the_periods_it_missed(driver: Driver) -> None:
    supervisor = driver.supervisor
    supervisor.activate(START)
    supervisor.set_goal(np.array([0.4, 0.3, 0.5]))
    driver.send(200)
    supervisor.outside_problem("gravity", GRAVITY)
    driver.send()
    first = supervisor.ramp(7.0)
    late = supervisor.ramp(7.02)
    assert late.time - first.time == 20 * MS
    change = np.abs(late.torque - first.torque)
    rate = supervisor.controller.task.arm.limits.torque_rate
    assert (change <= 0.02 * rate + 1e-9).all()
    assert (change > 0.01 * rate).any()
    much_later = supervisor.ramp(17.02)
    assert much_later.time - late.time == 2 * MS * (MOST_MISSED + 1)
    before = supervisor.ramp(3.0)
    assert before.time - much_later.time == 2 * MS, "the clock was set back"


def test_the_same_fault_with_other_numbers_is_told_once(driver: Driver) -> None:
    supervisor = driver.supervisor
    supervisor.activate(START)
    driver.send(5)
    for number in range(100):
        supervisor.outside_problem("driver", Fault("too far", f"joint at {number} rad"))
        driver.send()
    assert [event for event in supervisor.take_events() if isinstance(event, FaultBegan)] == [
        FaultBegan(Fault("too far", "joint at 0 rad"), has_torque=True)
    ]
    supervisor.outside_problem("driver", Fault("another", "joint at 0 rad"))
    driver.send()
    assert any(isinstance(event, FaultBegan) for event in supervisor.take_events())


def test_silence_is_a_fault_on_either_clock(driver: Driver) -> None:
    for late in (Instant(0.11, 0.0), Instant(0.0, 2.1)):
        supervisor = driver.supervisor
        supervisor.activate(START)
        driver.send(5)
        supervisor.check_silence(START)
        supervisor.check_silence(Instant(0.09, 1.9))
        assert supervisor.fault is None
        supervisor.check_silence(late)
        assert supervisor.fault is not None
        assert "is the driver running?" in supervisor.fault.sentence
        assert driver.send()[0] is not None
        supervisor.deactivate()
    assert driver.supervisor.counts["stale joint states"] == 2


def test_before_the_first_state_it_waits_and_says_what_was_wrong_with_those_that_came(driver: Driver) -> None:
    supervisor = driver.supervisor
    supervisor.activate(START)
    supervisor.check_silence(Instant(0.2, 0.2))
    assert supervisor.fault is not None
    assert "first joint state" in supervisor.fault.sentence
    supervisor.receive(1, NAMES[1:], HOME[1:], np.zeros(6))
    supervisor.check_silence(Instant(0.3, 0.3))
    assert "lacks panda_joint1" in supervisor.fault.sentence
    assert supervisor.counts["stale joint states"] == 0


def test_a_state_that_is_repeated_is_answered_again_the_second_time(driver: Driver) -> None:
    driver.supervisor.activate(START)
    (first,) = driver.send()
    assert first is not None
    assert driver.send(1, period=0) == [None]
    (again,) = driver.send(1, period=0)
    assert again is not None
    assert again.repeated
    assert (again.torque == first.torque).all()


def test_goals_and_their_absence_are_told_while_driving(driver: Driver) -> None:
    supervisor = driver.supervisor
    supervisor.set_goal(np.array([0.4, 0.2, 0.5]))
    assert supervisor.take_events() == []
    supervisor.activate(START)
    driver.send()
    assert supervisor.activity.now.state == REACHING
    supervisor.take_events()
    supervisor.set_goal(np.array([0.4, 0.3, 0.5]))
    assert supervisor.take_events() == [ActivityChanged()]
    supervisor.deactivate()
    assert supervisor.activity.now.state == IDLE


def test_a_goal_that_moves_is_told_once_and_again_after_a_pause(driver: Driver) -> None:
    supervisor = driver.supervisor
    supervisor.activate(START)
    driver.send(10)
    supervisor.take_events()
    news = []
    for step in range(50):
        news.append(supervisor.set_goal(np.array([0.4, 0.2 + 0.004 * step, 0.5])))
        driver.send(10)
    assert news == [True] + [False] * 49
    assert supervisor.take_events() == [ActivityChanged()]
    driver.send(150)
    assert supervisor.set_goal(np.array([0.4, 0.4, 0.5]))
    assert supervisor.take_events() == [ActivityChanged()]


def test_a_lie_that_is_told_before_the_arm_was_ever_driven_is_a_fault(driver: Driver) -> None:
    supervisor = driver.supervisor
    supervisor.activate(START)
    supervisor.outside_problem("rivals", Fault("two publishers", "stop one."))
    driver.send(50)
    supervisor.outside_problem("rivals", None)
    moved = HOME + 0.5 * np.eye(7)[2]
    for _ in range(10):
        driver.time += 2 * MS
        supervisor.receive(driver.time, NAMES, moved, np.zeros(7))
    assert supervisor.fault is not None
    assert supervisor.fault.kind == "jump"
    assert not supervisor.ramp(0.0).torque.any()
