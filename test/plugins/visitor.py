"""Someone who has the page open, without a browser: `python visitor.py ADDRESS` prints how many bytes have come."""

import http.client
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import viser
from websockets.sync.client import connect

CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "position": (2.0, 0.0, 1.0),
    "fov": 1.0,
    "near": 0.1,
    "far": 100.0,
    "image_height": 800,
    "image_width": 1280,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, 0.0, 1.0),
}
"""What a page says first; before that viser counts no visitor."""


@contextmanager
def visit(address: str, heard: Path) -> Iterator[None]:
    """Inside, a process of its own has the page at this address open; what it prints goes to the file."""
    with heard.open("w") as output:
        process = subprocess.Popen([sys.executable, __file__, address], stdout=output)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main(address: str) -> None:
    """Open the page and listen until killed."""
    url = urlsplit(address)
    asked = http.client.HTTPConnection(url.netloc, timeout=20)
    asked.request("GET", f"{url.path}?{url.query}")
    cookie = str(asked.getresponse().headers["Set-Cookie"]).partition(";")[0]
    total = 0
    with connect(
        f"ws://{url.netloc}",
        additional_headers={"Cookie": cookie},
        origin=f"http://{url.netloc}",  # type: ignore[arg-type]
        subprotocols=[f"viser-v{viser.__version__}"],  # type: ignore[list-item]
    ) as page:
        page.send(msgspec.msgpack.encode(CAMERA))
        while True:
            total += len(page.recv())
            print(total, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
