"""What the running graph says to a viewer, and what a viewer may ask of it."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped, WrenchStamped
from nav_msgs.msg import Path
from rcl_interfaces.msg import Parameter, ParameterEvent, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray, String, UInt8MultiArray
from std_srvs.srv import SetBool, Trigger

from spiking_controller.evaluation.raster import SpikeRaster
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.latest import LatestMessages
from spiking_controller.robots.arm import Arm
from spiking_controller.robots.limits import FloatArray
from spiking_controller.streams.moments import CONTACT_SHOWN, REFUSAL_SHOWN, Curves, Health, Moment
from spiking_controller.units import NANOSECONDS
from spiking_controller.viewing.sampled_curves import SampledCurves

TRAIL = 30
"""Places of the hand that its way is drawn through."""
HEALTH_AGE = 5.0
"""Diagnostics that were not repeated for so long are forgotten, s."""
ANSWER_TIMEOUT = 3.0
"""A service that has not answered by then does not, s."""
LATEST = {
    "joint_states": JointState,
    "controller/torque": JointState,
    "controller/tracking_error": Float64,
    "controller/prediction_error": Float64,
    "controller/disturbance": JointState,
    "controller/load": Float64MultiArray,
    "controller/imagination": Path,
    "controller/imagined_state": JointState,
}
SERVICES = {
    "reset": (Trigger, "mujoco_bridge/reset"),
    "step": (Trigger, "mujoco_bridge/step"),
    "pause": (SetBool, "mujoco_bridge/pause"),
    "clear goal": (Trigger, "controller/clear_goal"),
    "rollback": (Trigger, "controller/rollback"),
    "trainer": (SetBool, "trainer/enable"),
}
PARAMETERS = {
    "payload": ("mujoco_bridge", "payload_mass"),
    "friction": ("mujoco_bridge", "friction_factor"),
    "torque share": ("controller", "torque_scale"),
}


class LiveGraph:
    """The running graph, seen from one node.

    Attributes:
        raster: the latest spikes.
    """

    def __init__(
        self,
        node: Node,
        arm: Arm,
        joint_names: tuple[str, ...],
        say: Callable[[str, bool], None],
        set_slider: Callable[[str, float | None], None],
        read_only: bool = False,
    ) -> None:
        """Join the topics.

        Args:
            node: in whose name.
            arm: that is looked at.
            joint_names: as the driver calls its joints.
            say: is told what came of a request, and whether it was refused.
            set_slider: is told the present value of each of PARAMETERS; None where nobody has it.
            read_only: only listen; nothing may be asked for.
        """
        self._node = node
        self._arm = arm
        self._joint_names = joint_names
        self._say = say
        self._set_slider = set_slider
        self.raster = SpikeRaster()
        self._inputs: LatestMessages | None = None
        self._spike_input: LatestMessages | None = None
        self._moment = Moment(0.0, np.asarray(arm.home, dtype=np.float64))
        self._is_heard = False
        self._trail: deque[FloatArray] = deque(maxlen=TRAIL)
        self._goal: FloatArray | None = None
        self._refusal, self._asked = "", ""
        self._future: FloatArray = np.zeros((0, 3))
        self._future_position: FloatArray | None = None
        self._state, self._reason, self._version = "", "", ""
        self._health: dict[str, tuple[float, Health]] = {}
        self._sampled = SampledCurves()
        self._disturbance: float | None = None
        self._load: tuple[float, float] | None = None
        self._contact, self._touched_at = np.zeros(3), -math.inf
        self._refused, self._refused_at = np.full(3, math.nan), -math.inf
        self._waiting: list[tuple[Any, str, float]] = []
        node.create_subscription(PointStamped, "controller/goal", self._on_goal, messages.LATCHED)
        node.create_subscription(DiagnosticStatus, "controller/status", self._on_status, messages.LATCHED)
        node.create_subscription(String, "controller/version", self._on_version, messages.LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, messages.RELIABLE)
        node.create_subscription(WrenchStamped, "controller/contact", self._on_contact, messages.RELIABLE)
        self._space = node.get_namespace().rstrip("/")
        self._goal_entry = f"{self._space}/controller: goal"
        if read_only:
            return
        self._goal_publisher = node.create_publisher(PointStamped, "goal_point", messages.RELIABLE)
        self._push_publisher = node.create_publisher(WrenchStamped, "mujoco_bridge/push", messages.RELIABLE)
        self._services = {name: (kind, node.create_client(kind, path)) for name, (kind, path) in SERVICES.items()}
        owners = {owner for owner, _ in PARAMETERS.values()}
        self._setters = {name: node.create_client(SetParameters, f"{name}/set_parameters") for name in owners}
        self._getters = {name: node.create_client(GetParameters, f"{name}/get_parameters") for name in owners}
        self._asked_at = dict.fromkeys(owners, -math.inf)
        self._answers: dict[str, Any] = {}
        node.create_subscription(ParameterEvent, "/parameter_events", self._on_parameters, messages.RELIABLE)

    def watch(self, watching: bool) -> None:
        """Join the topics that are told at every joint state and control step, or leave them: they cost most."""
        if watching and self._inputs is None:
            spikes = {"controller/spikes": UInt8MultiArray}
            self._inputs = LatestMessages(self._node, LATEST)
            self._spike_input = LatestMessages(self._node, spikes, messages.WAITING, "spikes")
            self._sampled.clear()
            self._trail.clear()
        elif not watching and self._inputs is not None and self._spike_input is not None:
            self._inputs.close()
            self._spike_input.close()
            self._inputs = self._spike_input = None

    @property
    def is_heard(self) -> bool:
        """Whether joint states have come."""
        return self._is_heard

    def look(self) -> Moment:
        """Take what has come since the last look, and say what there is to see. `watch` comes first."""
        assert self._inputs is not None
        assert self._spike_input is not None
        self._take_numbers(self._inputs)
        while (spikes := self._spike_input.take("controller/spikes")) is not None:
            layers = messages.spikes_from_message(spikes)
            self.raster.add(layers)
            self._sampled.count_spikes(sum(int(layer.sum()) for layer in layers.values()))
        self._sampled.sample()
        self._check_requests()
        now = time.monotonic()
        is_refused = bool(self._refusal) and now - self._refused_at < REFUSAL_SHOWN
        self._moment = Moment(
            self._moment.time,
            self._moment.joint_position,
            goal=self._goal,
            refusal=self._refusal,
            refused=self._refused if is_refused else None,
            trail=np.array(self._trail).reshape(-1, 3),
            future=self._future,
            future_position=self._future_position if len(self._future) else None,
            state=self._state,
            reason=self._reason,
            version=self._version,
            disturbance=self._disturbance,
            load=self._load,
            contact=self._contact if now - self._touched_at < CONTACT_SHOWN else None,
            health=tuple(entry for heard, entry in self._health.values() if now - heard < HEALTH_AGE),
        )
        return self._moment

    def _take_numbers(self, inputs: LatestMessages) -> None:
        state = inputs.take("joint_states")
        if state is not None:
            self._take_state(state)
        for topic, name in (
            ("controller/tracking_error", "distance"),
            ("controller/prediction_error", "prediction error"),
        ):
            if (number := inputs.take(topic)) is not None:
                self._sampled.tell(name, float(number.data))
        if (torque := inputs.take("controller/torque")) is not None and torque.effort:
            self._sampled.tell("torque", float(np.abs(torque.effort).max()))
        if (disturbance := inputs.take("controller/disturbance")) is not None:
            self._disturbance = float(np.linalg.norm(disturbance.effort))
            self._sampled.tell("disturbance", self._disturbance)
        if (load := inputs.take("controller/load")) is not None and len(load.data) > 1:
            self._load = float(load.data[0]), float(load.data[1])
        if (path := inputs.take("controller/imagination")) is not None:
            places = [pose.pose.position for pose in path.poses]
            self._future = np.array([(place.x, place.y, place.z) for place in places]).reshape(-1, 3)
        if (imagined := inputs.take("controller/imagined_state")) is not None:
            self._future_position = self._ordered(imagined)

    def curves(self) -> Curves:
        """The latest samples; the newest is at time zero."""
        return self._sampled.curves()

    def send_goal(self, point: FloatArray) -> None:
        """Ask for a goal, m, [3]."""
        self._refusal = self._asked = ""
        message = PointStamped()
        message.header.frame_id = self._arm.base_frame
        message.point.x, message.point.y, message.point.z = (float(value) for value in point)
        self._goal_publisher.publish(message)

    def push(self, link: str, force: FloatArray) -> None:
        """Push a link at its origin, N along its axes, [3]; for as long as the bridge's push_duration."""
        message = WrenchStamped()
        message.header.frame_id = link
        message.wrench.force.x, message.wrench.force.y, message.wrench.force.z = (float(value) for value in force)
        self._push_publisher.publish(message)

    def call(self, name: str, value: bool | None = None) -> None:
        """Ask for one of SERVICES; `say` gets the answer."""
        kind, client = self._services[name]
        if not client.service_is_ready():
            self._say(f"{name}: nobody offers {SERVICES[name][1]}.", True)
            return
        request = kind.Request() if value is None else kind.Request(data=value)
        self._waiting.append((client.call_async(request), name, time.monotonic()))

    def set_parameter(self, name: str, value: float) -> None:
        """Set one of PARAMETERS; `say` gets the answer."""
        owner, parameter = PARAMETERS[name]
        client = self._setters[owner]
        if not client.service_is_ready():
            self._say(f"{name}: there is no {owner} here.", True)
            return
        given = (
            ParameterValue(type=ParameterType.PARAMETER_DOUBLE_ARRAY, double_array_value=[value])
            if name == "friction"
            else ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        )
        request = SetParameters.Request(parameters=[Parameter(name=parameter, value=given)])
        self._waiting.append((client.call_async(request), name, time.monotonic()))

    def _check_requests(self) -> None:
        """Tell what has been answered."""
        for entry in list(self._waiting):
            future, name, asked_at = entry
            if future.done():
                self._waiting.remove(entry)
                answer = future.result()
                result = answer.results[0] if hasattr(answer, "results") else answer
                reason = getattr(result, "reason", "") or getattr(result, "message", "")
                is_good = getattr(result, "successful", getattr(result, "success", True))
                self._say(f"{name}: {reason or 'done'}", not is_good)
            elif time.monotonic() - asked_at > ANSWER_TIMEOUT:
                self._waiting.remove(entry)
                future.cancel()
                self._say(f"{name}: no answer within {ANSWER_TIMEOUT:.0f} s.", True)

    def _take_state(self, state: JointState) -> None:
        position = self._ordered(state)
        if position is None:
            self._node.get_logger().warning(
                f"the joint states lack one of {', '.join(self._joint_names)}; set joint_names.",
                throttle_duration_sec=5.0,
            )
            return
        stamp = messages.stamp_to_time(state.header.stamp) / NANOSECONDS
        if stamp < self._moment.time:
            self._trail.clear()
        self._is_heard = True
        self._moment = Moment(stamp, position)
        hand = self._arm.chain.position(position)
        if not self._trail or np.linalg.norm(hand - self._trail[-1]) > 0.003:
            self._trail.append(hand)

    def _ordered(self, state: JointState) -> FloatArray | None:
        """Angles in the arm's order; None where some are missing."""
        angles = dict(zip(state.name, state.position, strict=False))
        if not all(name in angles for name in self._joint_names):
            return None
        return np.array([angles[name] for name in self._joint_names])

    def _on_goal(self, message: PointStamped) -> None:
        self._goal = np.array([message.point.x, message.point.y, message.point.z])
        self._refusal = ""

    def _on_contact(self, message: WrenchStamped) -> None:
        force = message.wrench.force
        self._contact, self._touched_at = np.array([force.x, force.y, force.z]), time.monotonic()

    def ask_for_parameters(self) -> None:
        """Ask nodes that are there what the sliders' values are, until they have said; `set_slider` is told."""
        now = time.monotonic()
        for owner, client in self._getters.items():
            answer = self._answers.get(owner)
            if not client.service_is_ready():
                if self._asked_at[owner] > 0.0:
                    # It was there and is gone; another one may come.
                    self._asked_at[owner] = -math.inf
                    self._answers.pop(owner, None)
                    for name, (whose, _) in PARAMETERS.items():
                        if whose == owner:
                            self._set_slider(name, None)
            elif answer is not None and answer.done():
                del self._answers[owner]
                self._asked_at[owner] = math.inf
                asked = [parameter for whose, parameter in PARAMETERS.values() if whose == owner]
                for parameter, value in zip(asked, answer.result().values, strict=True):
                    self._tell_parameter(owner, parameter, value)
            elif now - self._asked_at[owner] > ANSWER_TIMEOUT:
                self._asked_at[owner] = now
                asked = [parameter for whose, parameter in PARAMETERS.values() if whose == owner]
                self._answers[owner] = client.call_async(GetParameters.Request(names=asked))

    def _on_parameters(self, message: ParameterEvent) -> None:
        """Somebody has changed one."""
        for owner in self._getters:
            if message.node == f"{self._space}/{owner}":
                for parameter in message.changed_parameters:
                    self._tell_parameter(owner, parameter.name, parameter.value)

    def _tell_parameter(self, owner: str, parameter: str, value: ParameterValue) -> None:
        for name, known in PARAMETERS.items():
            if known == (owner, parameter):
                numbers = value.double_array_value or [value.double_value]
                self._set_slider(name, float(numbers[0]))

    def _on_status(self, message: DiagnosticStatus) -> None:
        self._state = message.message
        self._reason = next((item.value for item in message.values if item.key == "reason"), "")

    def _on_version(self, message: String) -> None:
        self._version = message.data

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        now = time.monotonic()
        for status in message.status:
            level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
            self._health[status.name] = now, Health(level, status.name, status.message)
            if status.name == self._goal_entry:
                self._take_refusal(status, now)

    def _take_refusal(self, status: DiagnosticStatus, now: float) -> None:
        """The controller repeats it until another goal is accepted."""
        refusal = status.message if status.level == DiagnosticStatus.WARN else ""
        asked = next((item.value for item in status.values if item.key == "asked"), "")
        if refusal and (refusal, asked) != (self._refusal, self._asked):
            self._refused_at = now
            self._refused = np.array([float(part) for part in asked.split()] or [math.nan] * 3)
        self._refusal, self._asked = refusal, asked
