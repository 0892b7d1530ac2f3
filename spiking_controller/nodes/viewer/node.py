"""The viewer node: a page in the browser that shows the running graph or a bag, and lets visitors touch the arm.

It costs next to nothing while nobody has the page open.
"""

import sys
import time
from queue import Empty, SimpleQueue

from rclpy.node import Node

from spiking_controller.errors import SpikingControllerError
from spiking_controller.evaluation.raster import SpikeRaster
from spiking_controller.nodes.common.arm_parameters import ARM, JOINT_NAMES, joint_names
from spiking_controller.nodes.common.parameters import ParameterSpec, declare_parameters, value_of
from spiking_controller.nodes.common.process import StopRequest, repeat_until_stopped, run_bystander
from spiking_controller.nodes.viewer.live import LiveGraph
from spiking_controller.robots.arm import get_arm
from spiking_controller.streams.bag_moments import RecordedRun
from spiking_controller.streams.moments import Moment
from spiking_controller.viewing.arm_scene import ArmModel
from spiking_controller.viewing.guard import LOOPBACK, start_server
from spiking_controller.viewing.page import LIVE, Page, Request
from spiking_controller.viewing.player import Player, bags_below

IDLE_PERIOD = 0.2
"""Between two looks for a visitor, s."""
CURVES_PERIOD, SPIKES_PERIOD = 0.5, 1.0
"""Between two pictures of these, s."""

PARAMETERS = [
    ARM,
    JOINT_NAMES,
    ParameterSpec("host", "127.0.0.1", "Address to listen on; others than 127.0.0.1 let other machines in."),
    ParameterSpec("port", 8080, "Port to listen on.", 1, 65535),
    ParameterSpec("read_only", False, "Visitors look and change nothing."),
    ParameterSpec("dark", False, "The page begins with a dark background."),
    ParameterSpec("bags", "", "Folder with recordings that the page can open; empty: none."),
    ParameterSpec("frequency", 12.0, "Pictures per second, Hz.", 1.0, 30.0),
]


class Viewer(Node):
    """Serves the page; `run` is its life."""

    def __init__(self) -> None:
        """Open the port and build the page.

        Raises:
            SpikingControllerError: a parameter has a wrong value, or the port is taken.
        """
        super().__init__("viewer")
        declare_parameters(self, PARAMETERS)
        arm = get_arm(value_of(self, "arm"))
        self._arm = arm
        self._bags = bags_below(value_of(self, "bags"))
        self._read_only = bool(value_of(self, "read_only"))
        self._requests: SimpleQueue[Request] = SimpleQueue()
        host, port = value_of(self, "host"), value_of(self, "port")
        self._server, guard = start_server(host, port)
        self._model = ArmModel(arm)
        self._page = Page(
            self._server, self._model, self._requests, list(self._bags), self._read_only, value_of(self, "dark")
        )
        self._live = LiveGraph(
            self, arm, joint_names(self), self._page.say, self._page.set_slider, read_only=self._read_only
        )
        self._player: Player | None = None
        self._curves_at = self._spikes_at = 0.0
        self._last: Moment | None = None
        shown = host if host in LOOPBACK else "THIS_MACHINE" if host in ("0.0.0.0", "::") else host
        print(f"the page: http://{shown}:{port}{guard.path}", flush=True)
        if host not in LOOPBACK:
            self.get_logger().warning(
                f"the page is open to other machines on {host}, without encryption: whoever has its address "
                f"{'sees' if self._read_only else 'moves'} the arm"
            )

    def run(self, stop: StopRequest) -> None:
        """Serve until asked to stop."""
        period = 1.0 / value_of(self, "frequency")
        try:
            repeat_until_stopped(self, stop, lambda: period if self._has_visitor() else IDLE_PERIOD, self._serve)
        finally:
            self._live.watch(False)
            self._server.stop()

    def _has_visitor(self) -> bool:
        return bool(self._server.get_clients())

    def _serve(self) -> None:
        """Do what visitors have asked for, and show them what is new."""
        self._answer_requests()
        has_visitor = self._has_visitor()
        self._live.watch(has_visitor)
        if has_visitor:
            self._show()

    def _show(self) -> None:
        """One picture."""
        live = self._live.look()
        if not self._read_only:
            self._live.ask_for_parameters()
        player, now = self._player, time.monotonic()
        if player is not None:
            player.advance()
            moment, note = player.run.at(player.moment), "a recording"
            self._page.show_time(player.moment)
        else:
            moment, note = live, "" if self._live.is_heard else "no joint states have come yet"
        if self._last is not None and (moment.refusal != self._last.refusal or moment.goal is not self._last.goal):
            self._page.goal_came()
        self._last = moment
        self._page.show(moment, note)
        if now - self._curves_at > CURVES_PERIOD:
            self._curves_at = now
            self._page.show_curves(self._live.curves() if player is None else player.run.curves(player.moment))
        if now - self._spikes_at > SPIKES_PERIOD:
            self._spikes_at = now
            raster = self._live.raster if player is None else SpikeRaster()
            if player is not None:
                for spikes in player.run.spikes(player.moment, 250):
                    raster.add(spikes)
            self._page.show_spikes(raster.image(), raster.layers)

    def _answer_requests(self) -> None:
        """Do what visitors have asked for; what moves the arm only where they may."""
        while True:
            try:
                request = self._requests.get_nowait()
            except Empty:
                return
            try:
                self._answer(request)
            except SpikingControllerError as error:
                self._page.say(str(error), True)

    def _answer(self, request: Request) -> None:
        name, value, player = request.name, request.value, self._player
        if name == "source":
            self._open(value)
        elif name == "play" and player is not None:
            player.toggle()
        elif name == "seek" and player is not None:
            player.seek(value)
        elif name == "speed" and player is not None:
            player.speed = value
        elif self._read_only or player is not None:
            self._page.say("this page shows only; nothing was sent.", True)
        elif name == "goal":
            self._live.send_goal(value)
        elif name == "push" and self._last is not None:
            link, force = value
            self._model.place(self._last.joint_position)
            self._live.push(link, self._model.in_link(link, force))
        elif name == "call":
            self._live.call(*value)
        elif name == "parameter":
            self._live.set_parameter(*value)

    def _open(self, name: str) -> None:
        """Show a bag, or the live graph again.

        Raises:
            ConfigError: it cannot be read.
        """
        if name == LIVE:
            self._player = None
            self._page.set_player(0.0)
            return
        run = RecordedRun(self._bags[name], self._arm)
        self._player = Player(run)
        self._page.set_player(run.duration)


def main(args: list[str] | None = None) -> int:
    """Run the viewer node until Ctrl-C or SIGTERM."""
    return run_bystander(Viewer, args)


if __name__ == "__main__":
    sys.exit(main())
