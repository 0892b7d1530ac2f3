"""A real browser for tests of the page: Chromium, driven by playwright."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
ARGUMENTS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""Draws without a graphics card."""
REQUIRED = "SPIKING_CONTROLLER_BROWSER"
"""Where this variable is set, a test that finds no browser fails."""
FIX = "there is no Chromium here; `apt install chromium` gets it, and the tests of the page run then"
HERE = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
COARSE = 0.25
"""Points of the picture per point of the page: without a graphics card, drawing is what takes the time."""
PATIENCE = 200_000
"""ms"""


class Browser:
    """Opens pages.

    Attributes:
        foreign: what they have asked of other machines.
    """

    def __init__(self, chromium: Any) -> None:
        self.foreign: list[str] = []
        self._chromium = chromium

    def context(self, width: int = 1280, height: int = 800) -> Any:
        """A visitor with cookies of their own."""
        context = self._chromium.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=COARSE, reduced_motion="reduce"
        )
        context.set_default_timeout(PATIENCE)
        return context

    def open(self, url: str) -> Any:
        """A page of the viewer, in a context of its own."""
        page = self.context().new_page()
        page.on("request", lambda request: self._note(request.url))
        page.on("websocket", lambda opened: self._note(opened.url))
        page.goto(url)
        page.get_by_role("tab", name="Health").wait_for()
        return page

    def _note(self, url: str) -> None:
        if not url.startswith(HERE):
            self.foreign.append(url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; the test is skipped where there is none."""
    if CHROMIUM is None:
        if os.environ.get(REQUIRED):
            pytest.fail(FIX)
        pytest.skip(FIX)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield Browser(chromium)
        chromium.close()
