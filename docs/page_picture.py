"""Makes docs/images/page.png, the picture of the page in the README, in Chromium without a window: `make picture`."""

import os
import shutil
import sys
from pathlib import Path

import rclpy
from geometry_msgs.msg import PointStamped
from playwright.sync_api import Page, sync_playwright
from std_srvs.srv import SetBool

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
    # Slowly and in lock-step: drawing without a graphics card leaves little time for anything else.
    options = ["--view", "true", "--lock-step", "true", "--real-time-factor", "0.3"]
    graph = Graph(command_line(options), log)
    rclpy.init()
    node = rclpy.create_node("page_picture")
    publisher = node.create_publisher(PointStamped, "goal_point", messages.RELIABLE)
    try:
        address = graph.page_address()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address, timeout=120_000)
            page.get_by_text("mm to the goal").wait_for(timeout=120_000)
            page.evaluate("document.querySelectorAll('.mantine-Notification-root').forEach(each => each.remove())")
            page.get_by_role("tab", name="Curves").click()
            _send(publisher, GOALS[0])
            page.wait_for_timeout(500)
            _wait_for_distance(page, 0.0, 10.0)
            _send(publisher, GOALS[1])
            _wait_for_distance(page, 100.0, 450.0)
            pause = node.create_client(SetBool, "mujoco_bridge/pause")
            pause.wait_for_service()
            rclpy.spin_until_future_complete(node, pause.call_async(SetBool.Request(data=True)))
            page.wait_for_timeout(3_000)
            page.screenshot(path=str(PICTURE), timeout=120_000)
            browser.close()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        graph.stop()
        log.unlink(missing_ok=True)
    print(f"wrote {PICTURE}")
    return 0


def _wait_for_distance(page: Page, least: float, most: float) -> None:
    """Until the page says that the hand is so far from its goal, mm."""
    distance = "parseFloat((document.body.textContent.match(/([0-9.]+) mm to the goal/) || [])[1])"
    page.wait_for_function(f"{least} <= {distance} && {distance} <= {most}", timeout=240_000)


def _send(publisher: rclpy.publisher.Publisher, goal: tuple[float, float, float]) -> None:
    message = PointStamped()
    message.point.x, message.point.y, message.point.z = goal
    publisher.publish(message)


if __name__ == "__main__":
    sys.exit(main())
