"""The controller node: joint states in, torques out, as a managed node.

It updates on each joint state, by the message's stamp, so that real time, simulated time, bags and lock-step give the
same torques. What an update does is in `control/`, what the graph hears of it in `session`; this module is the node's
life.
"""

import sys
import traceback
from collections.abc import Mapping
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from spiking_controller.errors import SpikingControllerError
from spiking_controller.nodes.common.parameters import declare_parameters, follow_changes, value_of
from spiking_controller.nodes.common.process import FAILED, StopRequest, create_executor, run_process
from spiking_controller.nodes.controller.parameters import PARAMETERS
from spiking_controller.nodes.controller.session import ControllerSession


class ControllerNode(LifecycleNode):
    """Drives the arm while active.

    configure  loads the checkpoint and checks it against the arm; fails with a sentence in the log
    activate   holds the hand where it is, or goes to the last goal, after a soft start; fails with a sentence where the
               running graph has shown that it does not fit the checkpoint
    deactivate ramps the torque to zero at the rate limit; so does shutdown from active

    What the graph shows later than that, and what goes wrong in it, is a *fault*: the torque ramps to zero, the reason
    is on `~/status`, and control resumes with a soft start when the reason is gone.
    """

    def __init__(self) -> None:
        """Declare the parameters.

        Raises:
            ConfigError: a parameter has a wrong value.
        """
        self._session: ControllerSession | None = None
        super().__init__("controller")
        declare_parameters(self, PARAMETERS)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        follow_changes(self, PARAMETERS, self._on_parameters)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and connect everything; FAILURE with the reason in the log where that cannot be."""
        try:
            self._session = ControllerSession(self, self._steady)
        except SpikingControllerError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception:
            # rclpy would swallow it.
            self.get_logger().fatal(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start from zero torque and a soft start; FAILURE with the reason where the graph does not fit."""
        if self._session is None or not self._session.activate():
            return TransitionCallbackReturn.FAILURE
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ramp the torque to zero (87 ms at most); SUCCESS."""
        if self._session is not None:
            self._session.deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave the topics and forget the networks and the goal; SUCCESS."""
        self.finish()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ramp the torque to zero if active, leave the topics; SUCCESS."""
        self.finish()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, without torque; SUCCESS."""
        self.finish()
        return TransitionCallbackReturn.SUCCESS

    def finish(self) -> None:
        """Ramp the torque to zero and leave the topics, whatever the state; also for the end of the process."""
        session, self._session = self._session, None
        if session is not None:
            session.deactivate()
            session.close()

    def _on_parameters(self, changed: Mapping[str, Any]) -> None:
        if self._session is not None:
            self._session.change_parameters(changed)


def _control(stop: StopRequest) -> int:
    """The node's life as a process: start, update until asked to stop, ramp down."""
    node = ControllerNode()
    executor = create_executor()
    executor.add_node(node)
    try:
        if value_of(node, "autostart"):
            for transition in (node.trigger_configure, node.trigger_activate):
                if transition() != TransitionCallbackReturn.SUCCESS:
                    return FAILED
        while not stop:
            executor.spin_once(timeout_sec=0.1)
        return 0
    finally:
        node.finish()
        executor.shutdown()
        node.destroy_node()


def main(args: list[str] | None = None) -> int:
    """Run the controller node until Ctrl-C or SIGTERM."""
    return run_process(_control, args)


if __name__ == "__main__":
    sys.exit(main())
