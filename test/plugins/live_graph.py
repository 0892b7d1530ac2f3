"""Starts real nodes as processes, watches their topics, and checks every torque that is published."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped, PoseStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.srv import ListParameters
from rclpy.client import Client
from rclpy.context import Context
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String, UInt8MultiArray

from spiking_controller.commands.up import NODE_MODULES
from spiking_controller.nodes.common import messages
from spiking_controller.nodes.common.process import create_executor
from spiking_controller.robots.arm import Arm, get_arm

PATIENCE = 60.0
"""Longest wait for anything, s; machines that run tests can be slow."""
ANSWER_TIMEOUT = 2.0
"""A request that is not answered by then may be lost, s."""
ELSEWHERE = ((0.35, 0.35, 0.6), (0.45, -0.3, 0.5))
"""Goals to start from, m."""
_REACHED = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
    Transition.TRANSITION_ACTIVE_SHUTDOWN: State.PRIMARY_STATE_FINALIZED,
}
"""The state that each transition ends in."""
DEEP = QoSProfile(depth=20000)
DEEP_BEST_EFFORT = QoSProfile(depth=20000, reliability=ReliabilityPolicy.BEST_EFFORT)


class Probe(Node):
    """Hears everything that matters and can send what a user or another node would send."""

    def __init__(self, context: Context, namespace: str = "", remaps: Sequence[str] = ()) -> None:
        arguments = [argument for remap in remaps for argument in ("--remap", remap)]
        super().__init__("probe", context=context, namespace=namespace, cli_args=["--ros-args", *arguments])
        self.arm: Arm = get_arm("panda")
        self.states: list[JointState] = []
        self.commands: list[Float64MultiArray] = []
        self.torques: list[JointState] = []
        self.predictions: list[JointState] = []
        self.spikes: list[UInt8MultiArray] = []
        self.goals: list[PointStamped] = []
        self.hand_poses: list[PoseStamped] = []
        self.activities: list[DiagnosticStatus] = []
        self._statuses: dict[str, DiagnosticStatus] = {}
        self._heard: Counter[str] = Counter()
        for kind, topic, heard, qos in (
            (JointState, "joint_states", self.states, DEEP),
            (Float64MultiArray, "effort_controller/commands", self.commands, DEEP),
            (JointState, "controller/torque", self.torques, DEEP_BEST_EFFORT),
            (JointState, "controller/prediction", self.predictions, DEEP_BEST_EFFORT),
            (UInt8MultiArray, "controller/spikes", self.spikes, DEEP_BEST_EFFORT),
            (PoseStamped, "hand_pose", self.hand_poses, DEEP_BEST_EFFORT),
            (PointStamped, "controller/goal", self.goals, messages.LATCHED),
            (DiagnosticStatus, "controller/status", self.activities, messages.LATCHED),
        ):
            self.create_subscription(kind, topic, heard.append, qos)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, DEEP)
        self.goal_publisher = self.create_publisher(PointStamped, "goal_point", messages.RELIABLE)
        self._callers: dict[str, Client] = {}
        self._executor = create_executor(context)
        self._executor.add_node(self)

    @cached_property
    def command_publisher(self) -> Publisher:
        """Made when it is first used: a second publisher of commands stops the controller."""
        return self.create_publisher(Float64MultiArray, "effort_controller/commands", messages.COMMAND)

    @cached_property
    def state_publisher(self) -> Publisher:
        """Made when it is first used."""
        return self.create_publisher(JointState, "joint_states", messages.STATE_PUBLISHER)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._statuses[status.name] = status
            self._heard[status.name] += 1

    def status(self, name: str) -> str:
        """The latest summary on /diagnostics under that name."""
        return self._statuses[name].message if name in self._statuses else ""

    def next_status(self, name: str) -> None:
        """Wait for another message on /diagnostics under that name."""
        heard = self._heard[name]
        self.wait_for(lambda: self._heard[name] > heard, f"{name} on /diagnostics")

    def activity(self) -> str:
        """What the controller was about last; empty if it has not said."""
        return self.activities[-1].message if self.activities else ""

    def activity_figure(self, key: str) -> str:
        """A figure of what the controller was about last; empty if it is not there."""
        values = self.activities[-1].values if self.activities else []
        return next((item.value for item in values if item.key == key), "")

    def figure(self, name: str, key: str) -> str:
        """A figure on /diagnostics under that name; empty if it is not there."""
        values = self._statuses[name].values if name in self._statuses else []
        return next((item.value for item in values if item.key == key), "")

    def happens(self, condition: Callable[[], Any], within: float) -> bool:
        """Listen until the condition holds (True) or the time (s) is over (False)."""
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() >= end:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def wait_for(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
        """Listen until the condition holds."""
        assert self.happens(condition, patience), f"waited {patience} s for {what}"

    def repeat(self, action: Callable[[], Any], condition: Callable[[], Any], what: str, period: float = 0.005) -> None:
        """Do something once per period (s), since once may be lost, and listen until the condition holds."""
        next_time = 0.0

        def holds() -> bool:
            nonlocal next_time
            if time.monotonic() >= next_time:
                action()
                next_time = time.monotonic() + period
            return bool(condition())

        self.wait_for(holds, what)

    def send_goal(self, x: float, y: float, z: float, frame: str = "") -> None:
        self.wait_for(lambda: self.goal_publisher.get_subscription_count(), "a controller that takes goals")
        message = PointStamped()
        message.header.frame_id = frame
        message.point.x, message.point.y, message.point.z = x, y, z
        self.goal_publisher.publish(message)

    def send_accepted_goal(self, x: float, y: float, z: float) -> None:
        """Send it, and again until the controller has it: discovery may be one-sided for a moment.

        Once in any case: where the same goal was heard last, others that were sent meanwhile may still be on their way.
        """

        def accepted() -> bool:
            return bool(self.goals) and np.allclose(point(self.goals[-1]), (x, y, z))

        end = time.monotonic() + PATIENCE
        while True:
            self.send_goal(x, y, z)
            if self.happens(accepted, 0.3):
                return
            assert time.monotonic() < end, "the controller did not take the goal"

    def set_in_motion(self, x: float, y: float, z: float) -> None:
        """Send a goal and return with the arm on its way; again from elsewhere where it got there before we looked."""
        elsewhere = max(ELSEWHERE, key=lambda place: float(np.linalg.norm(np.subtract(place, (x, y, z)))))
        for _ in range(5):
            self.send_accepted_goal(x, y, z)
            if self.happens(lambda: self.speed() > 0.3 and self.distance((x, y, z)) > 0.1, 4.0):
                return
            self.send_accepted_goal(*elsewhere)
            self.wait_for(lambda: self.distance(elsewhere) < 0.05, "the arm to go elsewhere")
        raise AssertionError(f"the arm was never seen on its way to {(x, y, z)}")

    def _caller(self, kind: Any, service: str) -> Client:
        if service not in self._callers:
            self._callers[service] = self.create_client(kind, service)
        client = self._callers[service]
        self.wait_for(client.service_is_ready, f"the service {service}")
        return client

    def call(self, kind: Any, service: str, request: Any, once: bool = False) -> Any:
        """The answer of a service.

        Ready says that we see the service, not yet that it sees us: the request is sent again until an answer comes.
        One that must not act twice is sent `once`, to a service that has answered before.
        """
        client = self._caller(kind, service)
        end = time.monotonic() + PATIENCE
        futures = []
        while time.monotonic() < end:
            futures.append(client.call_async(request))
            if self.happens(lambda: any(future.done() for future in futures), PATIENCE if once else ANSWER_TIMEOUT):
                return next(future for future in futures if future.done()).result()
        raise AssertionError(f"waited {PATIENCE} s for the answer of {service}")

    def greet(self, node: str) -> None:
        """Return when the node has handled all that was sent to it before, and hears all publishers made before.

        It answers a client that is new to it. What makes endpoints known comes in order, so that it has heard of the
        older ones of this process by then.
        """
        service = f"{node}/list_parameters"
        self.call(ListParameters, service, ListParameters.Request())
        self.destroy_client(self._callers.pop(service))

    def state(self) -> int:
        """The controller's lifecycle state. It answers between two transitions."""
        return int(self.call(GetState, "controller/get_state", GetState.Request()).current_state.id)

    def change_state(self, transition: int) -> bool:
        """Ask for a transition; again where the request was lost, which shows by the state not having changed."""
        service = "controller/change_state"
        client = self._caller(ChangeState, service)
        request = ChangeState.Request()
        request.transition.id = transition
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            future = client.call_async(request)
            if self.happens(future.done, ANSWER_TIMEOUT) or (self.state() and future.done()):
                return bool(future.result().success)
            if self.state() == _REACHED[transition]:
                return True
        raise AssertionError(f"waited {PATIENCE} s for transition {transition}")

    def bring_up(self) -> None:
        """Configure and activate the controller, with time for the bridge to find it: a deaf arm seems stuck."""
        assert self.change_state(Transition.TRANSITION_CONFIGURE)
        for _ in range(2):
            self.next_status("/mujoco_bridge: simulation")
        assert self.change_state(Transition.TRANSITION_ACTIVATE)

    def time(self) -> float:
        """Stamp of the latest joint state, s; -1 before the first."""
        return stamp(self.states[-1]) if self.states else -1.0

    def hand(self) -> NDArray[np.float64]:
        """Position of the hand by the latest joint state, m."""
        return self.arm.chain.position(np.array(self.states[-1].position))

    def distance(self, goal: tuple[float, float, float]) -> float:
        return float(np.linalg.norm(self.hand() - goal)) if self.states else np.inf

    def speed(self) -> float:
        return float(np.abs(self.states[-1].velocity).max()) if self.states else 0.0

    def assert_every_torque_is_legal(self) -> None:
        """Commands inside the torque limits, stamped torques inside the rate limit, the arm inside its joint limits."""
        self.assert_torques_keep_their_limits()
        limits = self.arm.limits
        self.wait_for(lambda: self.states, "joint states")
        positions = np.array([state.position for state in self.states])
        beyond = np.maximum(limits.position_lower - positions, positions - limits.position_upper).max(axis=0)
        assert (beyond <= 0.0).all(), f"rad beyond the limits, by joint: {beyond}"

    def assert_torques_keep_their_limits(self) -> None:
        """Commands inside the torque limits, stamped torques inside the rate limit."""
        limits = self.arm.limits
        self.wait_for(lambda: self.commands and self.torques, "commands and torques")
        commands = np.array([command.data for command in self.commands])
        assert np.isfinite(commands).all()
        assert (np.abs(commands) <= limits.torque).all()
        torques = np.array([torque.effort for torque in self.torques])
        period = np.diff([stamp(torque) for torque in self.torques])
        period[period <= 0.0] = 0.002
        assert (np.abs(np.diff(torques, axis=0)) <= limits.torque_rate * period[:, None] + 1e-9).all()

    @contextmanager
    def also_spinning(self, node: Node) -> Iterator[None]:
        """Inside, another node of this process lives whenever the probe listens."""
        self._executor.add_node(node)
        yield
        self._executor.remove_node(node)

    def wait_for_rest(self, what: str) -> None:
        """Until the last command that was heard is zero torque."""
        self.wait_for(lambda: self.commands and not np.any(self.commands[-1].data), what)

    def assert_no_command_comes(self, diagnostics: str = "/controller: control") -> None:
        """None is published from now on until the controller has told its diagnostics twice."""
        self.greet("controller")
        commanded = len(self.commands)
        for _ in range(2):
            self.next_status(diagnostics)
        self.greet("controller")
        assert len(self.commands) == commanded

    def close(self) -> None:
        self._executor.shutdown()
        self.destroy_node()


class NodeProcess:
    """A node in a process of its own."""

    def __init__(self, program: list[str], log: Path, parameters: dict[str, Any], arguments: list[str]) -> None:
        command = [sys.executable, *program, "--ros-args", *arguments]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["--param", f"{name}:={text}"]
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait for the exit code."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        return self._process.wait(PATIENCE)

    def peak_memory(self) -> int:
        """Most memory that the process has held so far, bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def output(self) -> str:
        return self._log.read_text()


class Graph:
    """Nodes in processes; `close` ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[NodeProcess] = []

    def start(self, module: str, *arguments: str, **parameters: Any) -> NodeProcess:
        """A node of ours."""
        return self._start(["-m", NODE_MODULES[module]], module, arguments, parameters)

    def run(self, script: Path) -> NodeProcess:
        """A node that only tests need."""
        return self._start([str(script)], script.stem, (), {})

    def _start(
        self, program: list[str], name: str, arguments: Sequence[str], parameters: dict[str, Any]
    ) -> NodeProcess:
        log = self._folder / f"{len(self._started)}_{name}.log"
        self._started.append(NodeProcess(program, log, parameters, list(arguments)))
        return self._started[-1]

    def controller(self, *arguments: str, **parameters: Any) -> NodeProcess:
        return self.start("controller", *arguments, **parameters)

    def bridge(self, *arguments: str, **parameters: Any) -> NodeProcess:
        return self.start("mujoco_bridge", *arguments, **parameters)

    def close(self) -> None:
        for process in self._started:
            process.kill()


class Spoiler:
    """Tells the relay between bridge and controller (`test/nodes/relay.py`) what to do to joint states."""

    def __init__(self, probe: Probe, relay: NodeProcess) -> None:
        self._probe = probe
        self._relay = relay
        self._publisher = probe.create_publisher(String, "fault", messages.RELIABLE)
        probe.wait_for(self._publisher.get_subscription_count, "the relay")

    def spoil(self, fault: str, seconds: float) -> None:
        """Return when the fault has begun; it lasts so many seconds of wall time."""
        spoilt = self._relay.output.count("fault: ")
        self._publisher.publish(String(data=f"{fault} {seconds}"))
        self._probe.wait_for(lambda: self._relay.output.count("fault: ") > spoilt, f"the relay to begin with {fault}")

    def wait_for_truth(self) -> None:
        """Until the fault is over."""
        begun = self._relay.output.count("fault: ")
        self._probe.wait_for(lambda: self._relay.output.count("the truth after: ") == begun, "the truth")


def stamp(message: Any) -> float:
    """Stamp of a message, s."""
    return messages.stamp_to_time(message.header.stamp) / messages.NANOSECONDS


def point(message: PointStamped) -> tuple[float, float, float]:
    return message.point.x, message.point.y, message.point.z


@pytest.fixture(scope="session")
def context() -> Iterator[Context]:
    """A ROS context of our own: nodes that a test runs in this process start and end the default one."""
    context = Context()
    rclpy.init(args=[], context=context)
    yield context
    context.try_shutdown()


@pytest.fixture
def make_probe(context: Context) -> Iterator[Callable[..., Probe]]:
    """Makes probes in a namespace, with remaps."""
    made: list[Probe] = []

    def make(namespace: str = "", remaps: Sequence[str] = ()) -> Probe:
        made.append(Probe(context, namespace, remaps))
        return made[-1]

    yield make
    for probe in made:
        probe.close()


@pytest.fixture
def probe(make_probe: Callable[..., Probe]) -> Probe:
    return make_probe()


@pytest.fixture
def make_spoiler() -> type[Spoiler]:
    """Makes what tells a relay how to spoil joint states, for a probe and the relay's process."""
    return Spoiler


@contextmanager
def _running_graph(folder: Path, name: str) -> Iterator[Graph]:
    graph = Graph(folder)
    yield graph
    graph.close()
    for log in sorted(folder.glob("*.log")):
        print(f"--- {name}: {log.name}\n{log.read_text()}", file=sys.stderr)


@pytest.fixture
def graph(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Graph]:
    """Nodes for one test."""
    with _running_graph(tmp_path, request.node.name) as graph:
        yield graph


@pytest.fixture(scope="module")
def module_graph(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Graph]:
    """Nodes that the tests of a module share: a process with PyTorch takes seconds to start."""
    with _running_graph(tmp_path_factory.mktemp("graph"), request.node.name) as graph:
        yield graph
