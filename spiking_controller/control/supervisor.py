"""Decides whether the arm may be driven, and drives it or brings its torque to zero: the controller without the graph.

Joint states come in as plain values, torques go out, and what others should hear of are events. Nothing here waits,
logs or reads a clock, so that every transition can be tested.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiking_controller.control.activity import ActivityTracker
from spiking_controller.control.arm_state import OTHER_JOINTS, ArmSample, ArmStateReader, Rejection
from spiking_controller.control.blind_stop import BlindStop
from spiking_controller.control.contact import Contact
from spiking_controller.control.controller import Command, Controller, StepReport
from spiking_controller.control.fault import Fault
from spiking_controller.control.state_check import GAP_JUMP, JUMP, Doubt, StateCheck
from spiking_controller.control.state_stream import StateStream
from spiking_controller.robots.dynamics import ArmDynamics
from spiking_controller.tasks.torque import TorqueLaw
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]

RAMP_PERIOD: Final = 0.002
"""Between two torques on the way to zero, s; the rate limit is kept at this period."""
MOST_MISSED: Final = 50
"""Periods of the ramp that a late call makes up for at most: what it cannot know grows with them."""
MOST_AHEAD: Final = 0.05
"""The ramp has gone on for so long, s, while the clock stood still, or jumped back: it counts from now on."""
REPEATS_BEFORE_ANSWER: Final = 2
"""A joint state that is repeated so many times after our torque went out shows that the torque was lost. The first
repetition may have crossed with it, and a second answer would then be taken for that to the next state."""


BRIDGED_GAP: Final = 0.012
"""A gap between joint states that is longer than this, s,"""
BRIDGED_PERIODS: Final = 2.5
"""and than so many of their periods is bridged."""
SHORTEST_DOUBT: Final = 0.5
"""Joint states that could not be believed must look right for this time, s, before they drive the arm again;"""
LONGEST_DOUBT: Final = 8.0
"""each time twice as long, s, up to this, where they go wrong again"""
LONGEST_REPLAY: Final = 256
"""Torques that are gone through again at most, one for each RAMP_PERIOD: it must not keep the next state waiting."""
REMEMBERED: Final = 64
"""States that drove the arm and are kept, since the latest ones may turn out to be lies."""
CALM: Final = 5.0
"""within this time, s."""
STRAY: Final = 0.1
"""They must tell the arm where it stopped by reckoning, to within this, rad,"""
STRAY_FRACTION: Final = 0.5
"""plus this fraction of the way that it took to stop;"""
LONG_REST: Final = 2.0
"""or, unless one angle is offset, tell for this time, s, an arm"""
SLOW: Final = 0.15
"""that is slower than this, rad/s."""


MANY_OTHERS: Final = 100
"""After so many messages in a row about other joints alone, ours are missing."""
CONFLICT_WINDOW: Final = 100
"""Of so many joint states"""
CONFLICTS: Final = 5
"""so many that contradict the one before, by their stamp or by a jump, come from a second source."""


class Instant(NamedTuple):
    """A moment on two clocks, s: the node's, which may be simulated and stand still, and one that never does."""

    node: float
    steady: float


class Timeouts(NamedTuple):
    """How long joint states may stay away.

    Attributes:
        node: on the node's clock, s.
        steady: on the steady clock, s.
    """

    node: float
    steady: float


class FaultBegan(NamedTuple):
    """The arm is not driven any more; `has_torque` while that brings it to rest (`Supervisor.ramp`)."""

    fault: Fault
    has_torque: bool


class FaultEnded(NamedTuple):
    """The arm is driven again, with a soft start."""


class ActivityChanged(NamedTuple):
    """`Supervisor.activity` is in another state."""


class _Driven(NamedTuple):
    """A state that drove the arm, and the torque that answered it, N·m, [n]."""

    sample: ArmSample
    torque: FloatArray


Event: TypeAlias = FaultBegan | FaultEnded | ActivityChanged

CONTACT: Final = "contact"
"""The kind of fault of an arm that was touched."""
WAITING: Final = Fault("waiting", "waiting for the first joint state.")
SILENT: Final = Fault("no joint state", "no usable joint state comes; is the driver running?")


class Supervisor:
    """Inactive, driving, or faulted: what the controller does with a joint state, and with silence.

        inactive --activate--> driving --fault--> faulted --the reason is gone--> driving (soft start)
        any --deactivate--> inactive

    Attributes:
        controller: drives the arm.
        activity: what the arm is doing, as others are told it.
        is_active: whether it was activated; a faulted controller is active.
        fault: why an active controller does not drive the arm; None where it does.
        counts: what went wrong, by name.
        fresh_states: usable joint states since activation.
    """

    def __init__(
        self,
        controller: Controller,
        reader: ArmStateReader,
        stream: StateStream,
        activity: ActivityTracker,
        timeouts: Timeouts,
    ) -> None:
        """Begin inactive.

        Args:
            controller: of the arm.
            reader: of its joint states.
            stream: judges them together.
            activity: follows the arm.
            timeouts: of joint states that stay away.
        """
        task = controller.task
        self.check = StateCheck(reader.joint_names, task.arm.limits, ArmDynamics(task.arm), task.arm.home)
        self._stop = BlindStop(
            task.arm, TorqueLaw(task).joint_damping, RAMP_PERIOD, task.gravity_convention == "compensated"
        )
        self._is_stopping = self._is_bridging = False
        self._ignores_stream = False
        self._driven: deque[_Driven] = deque(maxlen=REMEMBERED)
        self._doubt: Fault | None = None
        self._was_in_doubt = self._relapsed = False
        self._doubted_at = 0
        self._hold = SHORTEST_DOUBT
        self._calm_since = self._resting_since = 0
        self._resumed_at: int | None = None
        self._bridge_seen, self._bridge_at = 0, 0.0
        self._ramped_at = math.inf
        self.controller = controller
        self.reader = reader
        self.stream = stream
        self.activity = activity
        self.is_active = False
        self.fault: Fault | None = None
        self.counts: Counter[str] = Counter()
        self.fresh_states = 0
        self._timeouts = timeouts
        self._rejected: Fault | None = None
        self._latest: int | None = None
        self._foreign = 0
        self._conflicts: deque[bool] = deque(maxlen=CONFLICT_WINDOW)
        self._outside: dict[str, Fault] = {}
        self._misfits: dict[str, Fault] = {}
        self._events: list[Event] = []
        self._seen_states = 0
        self._seen_at = Instant(0.0, 0.0)
        self._sent_time = self._repeats = 0

    def take_events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def outside_problem(self, source: str, problem: Fault | None, is_misfit: bool = False) -> None:
        """Tell what someone else found in the graph that forbids driving the arm, or that it is gone (None).

        Args:
            source: who found it; each has one problem at most.
            problem: the latest.
            is_misfit: it cannot pass by itself, so that `activate` is refused.
        """
        self._misfits.pop(source, None)
        if problem is not None and is_misfit:
            self._misfits[source] = problem
        if problem is None:
            self._outside.pop(source, None)
        else:
            self._outside[source] = problem

    @property
    def problem(self) -> Fault | None:
        """Why the arm must not be driven in this graph; None if it may."""
        return self.stream.problem or next(iter(self._outside.values()), None)

    @property
    def states_conflict(self) -> bool:
        """Whether the latest joint states look as if they came from two sources that know nothing of each other."""
        return sum(self._conflicts) >= CONFLICTS

    @property
    def latest_rejection(self) -> Fault | None:
        """Why the latest joint state was of no use; None where it was, or where it only was too late."""
        return self._rejected

    def activate(self, now: Instant) -> Fault | None:
        """Begin with the next joint state, at zero torque and with a soft start.

        Returns:
            Why it stays inactive instead: the latest joint states, or the graph, do not fit. None where it is active.
        """
        if refused := self._rejected or self.stream.problem or next(iter(self._misfits.values()), None):
            return refused
        self.controller.restart()
        self.reader.forget()
        self.stream.forget()
        self.check.forget()
        self.fault = self._doubt = None
        self._driven.clear()
        self._hold, self._resumed_at = SHORTEST_DOUBT, None
        self._is_stopping = self._is_bridging = False
        self.fresh_states = self._seen_states = 0
        self._seen_at = now
        self.is_active = True
        return None

    def deactivate(self) -> None:
        """Take no more joint states for control; `ramp` brings the torque to zero."""
        self.is_active = False
        self.fault = None
        self._is_stopping = self._is_bridging = False
        self._ramped_at = math.inf
        self._note(self.activity.idle(self._sent_time))

    def receive(self, time: int, names: Sequence[str], position: ArrayLike, velocity: ArrayLike) -> Command | None:
        """Take a joint state; see `ArmStateReader.read` for the arguments.

        Returns:
            The torque to send; None where there is none to send.
        """
        sample = self.reader.read(time, names, position, velocity)
        if isinstance(sample, Rejection):
            return self._after_rejection(sample)
        self._rejected = None
        self._foreign = 0
        self._conflicts.append(self._latest is not None and sample.time < self._latest)
        self._latest = sample.time
        self.stream.add(sample)
        self.fresh_states += 1
        if not self.is_active:
            return None
        unseen = self._stop.way if self._is_bridging or (self.fault and self._driven) else None
        examined = self.check.examine(sample, self.controller.safety.torque, unseen)
        if problem := self.problem or self._doubtful(sample, examined):
            self._stop_for(problem)
            return None
        if not isinstance(examined, ArmSample):
            return self._sent(Command(time, self.controller.safety.torque, new_step=False))
        if self.fault:
            self.fault = None
            self._is_stopping = False
            self._resumed_at = time
            self.controller.restart(gently=self._was_in_doubt)
            self._was_in_doubt = False
            self._events.append(FaultEnded())
        self._is_bridging = False
        if not examined.continues:
            # Stamps before a gap or a jump of time do not go together with those after it.
            self._driven.clear()
        command = self.controller.update(examined)
        self._driven.append(_Driven(examined, command.torque))
        return self._sent(command)

    def _doubtful(self, sample: ArmSample, examined: ArmSample | Doubt | None) -> Fault | None:
        """Why the sample cannot be believed, or not yet again; None where it can, or where it is only left out."""
        if isinstance(examined, Doubt):
            self._conflicts[-1] = self._conflicts[-1] or examined.fault.kind == JUMP
            if self._doubt is None:
                self._doubted_at = sample.time
                relapsed = self._relapsed = (
                    self._resumed_at is not None and sample.time - self._resumed_at < CALM * NANOSECONDS
                )
                self._hold = min(2.0 * self._hold, LONGEST_DOUBT) if relapsed else SHORTEST_DOUBT
                if self._driven and examined.fault.kind != GAP_JUMP:
                    self._begin_stop(sample.time, examined)
                else:
                    # What was before the gap says nothing about how to stop the arm now.
                    self._stop.start(sample.joint_position, sample.joint_velocity)
                    self._ramped_at = math.inf
                    self._is_stopping |= bool(self._driven)
                self._doubt = examined.fault
                self.counts[f"implausible: {examined.fault.kind}"] += 1
            elif sample.time - self._doubted_at > LONG_REST * NANOSECONDS:
                self._doubted_at = sample.time
                self.check.try_again()
            self._calm_since = self._resting_since = sample.time
            return self._doubt
        if self._doubt is None:
            return None
        self._was_in_doubt = True
        strayed = np.abs(sample.joint_position - self._stop.position) > STRAY + STRAY_FRACTION * self._stop.way
        if examined is None or strayed.any() or sample.time < self._calm_since:
            self._calm_since = sample.time
        if examined is None or np.abs(sample.joint_velocity).max() > SLOW or sample.time < self._resting_since:
            self._resting_since = sample.time
        # One joint alone that is not where it was reckoned has been offset; several show that the reckoning is wrong.
        # Where states were wrong in another way before, the jump may be the way back to the truth.
        is_offset = self._doubt.kind == JUMP and int(strayed.sum()) == 1 and not self._relapsed
        rested = not is_offset and sample.time - self._resting_since >= LONG_REST * NANOSECONDS
        calm = self._doubt.kind != GAP_JUMP and sample.time - self._calm_since >= self._hold * NANOSECONDS
        if rested or calm:
            self._doubt = None
        return self._doubt

    def report(self) -> StepReport:
        """Sum up the last control step; call once after a command with `new_step`, when it is on its way."""
        report = self.controller.report()
        if report.contact is not None:
            self._react(report.contact)
        self._note(
            self.activity.step(report.time, report.tracking_error)
            if self.controller.is_reaching
            else self.activity.idle(report.time)
        )
        return report

    def _react(self, contact: Contact) -> None:
        """Answer a contact as the settings ask."""
        self.counts["contact"] += 1
        self._ignores_stream = self.controller.settings.contact_reaction != "none"
        reaction = self.controller.settings.contact_reaction
        if reaction == "hold":
            self.controller.clear_goal()
        elif reaction == "ramp":
            strength = float(np.linalg.norm(contact.force))
            sentence = f"the arm was touched, by about {strength:.0f} N at the hand; send a goal to go on."
            self.outside_problem(CONTACT, Fault(CONTACT, sentence))

    def set_goal(self, goal: NDArray[np.float64], time: int | None = None) -> bool:
        """Send the hand there, from now on or as soon as the arm may be driven; ends what a contact stopped.

        A goal that goes on with the one before, as one of a stream does, is the same goal elsewhere: it is no news, and
        after a contact it is ignored like the rest of its stream.

        Args:
            goal: m, [d].
            time: when it came, as a stamp of the joint states, ns; by default that of the latest one.
        Returns:
            Whether it is another goal than before.
        """
        controller = self.controller
        continues = controller.goal_track.add(self.latest_time if time is None else time, goal)
        if continues and self._ignores_stream:
            return False
        self._ignores_stream = False
        self.outside_problem(CONTACT, None)
        is_new = not (continues and controller.is_reaching)
        controller.go_to(goal, continues=not is_new)
        if is_new and self.is_active and not self.fault:
            self._note(self.activity.new_goal(self._sent_time))
        return is_new

    @property
    def latest_time(self) -> int:
        """Stamp of the latest usable joint state, ns; 0 before the first."""
        return self._latest or 0

    def check_silence(self, now: Instant) -> None:
        """Fault where usable joint states have stayed away for too long; call often."""
        if not self.is_active:
            return
        if self.fresh_states != self._seen_states:
            self._seen_states = self.fresh_states
            self._seen_at = now
            return
        if (
            now.steady - self._seen_at.steady > self._timeouts.steady
            or now.node - self._seen_at.node > self._timeouts.node
        ):
            if self.fresh_states:
                self.counts["stale joint states"] += self.fault is None
            self._stop_for(self._rejected or (SILENT if self.fresh_states else WAITING))

    @property
    def is_ramping(self) -> bool:
        """Whether the torque has still a way to go to zero."""
        return self._is_stopping or bool(self.controller.safety.torque.any())

    def bridge(self, now: float) -> Command | None:
        """Look after a gap between joint states that is no fault yet; call every RAMP_PERIOD.

        A torque that goes on as it was would push the arm, or hold it back, for the length of the gap. Instead the arm
        is brought to rest, as far as the gap lasts.

        Args:
            now: on the node's clock, s.
        Returns:
            The torque to send; None where joint states come as they should.
        """
        if not self.is_active or self.fault or not self._driven:
            return None
        if self.fresh_states != self._bridge_seen or now < self._bridge_at:
            self._bridge_seen, self._bridge_at = self.fresh_states, now
            return None
        if now - self._bridge_at < max(BRIDGED_GAP, BRIDGED_PERIODS * (self.stream.period or 0.0)):
            return None
        if not self._is_bridging:
            self._begin_stop(self._driven[-1].sample.time + round((now - self._bridge_at) * NANOSECONDS))
            self._is_bridging = True
        return self.ramp(now)

    def _begin_stop(self, now: int, doubt: Doubt | None = None) -> None:
        """Stop the arm blindly, beginning `now` (stamp, ns), from the last state that can be believed."""
        since = self._driven[-1].sample.time if doubt is None else doubt.since
        first = next((each for each in self._driven if each.sample.time >= since), self._driven[-1]).sample
        velocity = first.joint_velocity if doubt is None or doubt.velocity is None else doubt.velocity
        began = first.time - (round(doubt.age * NANOSECONDS) if doubt else 0)
        torques: list[FloatArray] = []
        ends = [*(later.sample.time for later in islice(self._driven, 1, None)), now]
        for each, end in zip(self._driven, ends, strict=True):
            torques += [each.torque] * round((end - max(each.sample.time, began)) / NANOSECONDS / RAMP_PERIOD)
        self._stop.start(first.joint_position, velocity, torques[-LONGEST_REPLAY:])
        self._ramped_at = math.inf

    def ramp(self, now: float) -> Command:
        """The next torque on the way to zero; zero where it has arrived. Call every RAMP_PERIOD.

        After a fault and in a gap the way leads over the torque that stops the arm, see `blind_stop`. A call that comes
        late makes up for the periods that were missed: the arm has moved on under the torque before, and a torque that
        fell only call by call would push it on for as long as the process is kept from running.

        Args:
            now: on the node's clock, s.
        """
        safety, stop = self.controller.safety, self._stop
        missed = self._missed(now)
        for _ in range(missed):
            stop.advance(safety.torque)
        for _ in range(1 + missed):
            if self._is_stopping or self._is_bridging:
                torque = safety.filter(stop.torque, stop.position, stop.velocity, RAMP_PERIOD)
            else:
                torque = safety.ramp_down(RAMP_PERIOD)
        self._is_stopping = self._is_stopping and not stop.is_over
        stop.advance(torque)
        time = self._sent_time + round((1 + missed) * RAMP_PERIOD * NANOSECONDS)
        return self._sent(Command(time, torque, new_step=False))

    def _missed(self, now: float) -> int:
        """How many calls of `ramp` should have come since the last one, besides this one.

        A simulated clock moves in steps: what calls within one step have counted, the step itself does not count again.
        """
        begins = self._ramped_at - now > MOST_AHEAD
        late = 0 if begins else round((now - self._ramped_at) / RAMP_PERIOD) - 1
        missed = min(max(late, 0), MOST_MISSED)
        self._ramped_at = now if begins or late > MOST_MISSED else self._ramped_at + (1 + missed) * RAMP_PERIOD
        return missed

    def _after_rejection(self, rejection: Rejection) -> Command | None:
        self._conflicts.append(rejection.reason in ("repeated stamp", "old stamp"))
        if rejection.reason == OTHER_JOINTS:
            # Messages about other joints are none of our business, unless there is nothing else any more.
            self._conflicts.pop()
            self._foreign += 1
            if self._foreign < MANY_OTHERS:
                return None
        if rejection.reason == "repeated stamp":
            # A bridge in lock-step repeats its state when our answer, or the state, was lost. If that goes on until the
            # torque is at zero, that is the answer: without one, either would wait for the other for ever.
            self._repeats += 1
            if self.is_active and not self.problem and self._repeats >= REPEATS_BEFORE_ANSWER:
                self._repeats = 0
                return Command(self._sent_time, self.controller.safety.torque, new_step=False, repeated=True)
        elif rejection.reason != "old stamp":
            self._rejected = Fault(rejection.reason, rejection.sentence)
        return None

    def _sent(self, command: Command) -> Command:
        self._sent_time, self._repeats = command.time, 0
        return command

    def _stop_for(self, fault: Fault) -> None:
        """Drive no more, for a reason that lasts; a fault of the same kind is no other one."""
        if self.fault and self.fault.kind == fault.kind:
            return
        if self.fault is None and self._driven:
            if not self._is_bridging and self._doubt is None:
                self._begin_stop(self._driven[-1].sample.time)
            self._is_stopping, self._is_bridging = True, False
        self.fault = fault
        self._events.append(FaultBegan(fault, has_torque=self.is_ramping))
        self._note(self.activity.fault(self._sent_time, fault))

    def _note(self, is_news: bool) -> None:
        if is_news:
            self._events.append(ActivityChanged())
