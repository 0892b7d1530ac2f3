"""Makes docs/images/page.png, the picture of the page in the README, in Chromium without a window: `make picture`."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import rclpy
from geometry_msgs.msg import PointStamped, PoseStamped
from playwright.sync_api import sync_playwright
from rclpy.node import Node

from spiking_controller.commands.up import command_line
from spiking_controller.errors import ConfigError
from spiking_controller.nodes.clients.graph import Graph, keep_to_ourselves
from spiking_controller.nodes.common import messages

PICTURE = Path(__file__).parent / "images" / "page.png"
ARGUMENTS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
GOALS = ((0.45, 0.3, 0.35), (0.35, -0.35, 0.6))
"""The arm is shown on its way from the one to the other, m."""


def main() -> int:
    """Bring the graph up with the page, send goals, take the picture.

    Raises:
        ConfigError: there is no Chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise ConfigError("there is no Chromium here; run apt install chromium.")
    keep_to_ourselves()
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"page_picture_{os.getpid()}.log"
    # Very slowly and in lock-step: drawing without a graphics card takes a second.
    options = ["--view", "true", "--lock-step", "true", "--real-time-factor", "0.1"]
    graph = Graph(command_line(options), log)
    rclpy.init()
    photographer = Photographer()
    try:
        address = graph.page_address()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address, timeout=120_000)
            page.get_by_text("mm to the goal").wait_for(timeout=120_000)
            page.evaluate("document.querySelectorAll('.mantine-Notification-root').forEach(each => each.remove())")
            page.get_by_role("tab", name="Curves").click()
            photographer.send_goal(GOALS[0])
            photographer.wait_for_distance(0.0, 0.01)
            photographer.send_goal(GOALS[1])
            photographer.wait_for_distance(0.1, 0.45)
            page.wait_for_timeout(1_000)
            page.screenshot(path=str(PICTURE), timeout=120_000)
            browser.close()
    finally:
        photographer.destroy_node()
        rclpy.try_shutdown()
        graph.stop()
        log.unlink(missing_ok=True)
    print(f"wrote {PICTURE}")
    return 0


class Photographer(Node):
    """Watches the arm on its topics, which are quicker than the page that it takes the picture of."""

    def __init__(self) -> None:
        super().__init__("photographer")
        self._goal = np.full(3, np.nan)
        self._hand = np.full(3, np.nan)
        self._goals = self.create_publisher(PointStamped, "goal_point", messages.RELIABLE)
        self.create_subscription(PoseStamped, "hand_pose", self._on_hand, messages.LATEST)

    def send_goal(self, goal: tuple[float, float, float]) -> None:
        """m, in the base frame."""
        self._goal = np.array(goal)
        message = PointStamped()
        message.point.x, message.point.y, message.point.z = goal
        self._goals.publish(message)

    def wait_for_distance(self, least: float, most: float) -> None:
        """Until the hand is so far from the goal, m."""
        while not least <= np.linalg.norm(self._hand - self._goal) <= most:
            rclpy.spin_once(self)

    def _on_hand(self, message: PoseStamped) -> None:
        position = message.pose.position
        self._hand = np.array([position.x, position.y, position.z])


if __name__ == "__main__":
    sys.exit(main())
