"""What RViz shows: `config/panda.rviz`, for the arm at hand and for its namespace."""

from spiking_controller.resources import share_path
from spiking_controller.robots.arm import get_arm

_BASE = "Fixed Frame: panda_link0"
_PREFIX = 'TF Prefix: ""'


def rviz_configuration(arm: str, namespace: str = "") -> str:
    """A configuration file's content.

    Args:
        arm: its name.
        namespace: of the graph; its name stands before the frames' names.
    """
    space = namespace.strip("/")
    base = get_arm(arm).base_frame
    text = share_path("config", "panda.rviz").read_text(encoding="utf-8")
    for known, given in (
        (_BASE, f"Fixed Frame: {space}/{base}" if space else f"Fixed Frame: {base}"),
        (_PREFIX, f'TF Prefix: "{space}"'),
    ):
        if text.count(known) != 1:
            raise RuntimeError(f"config/panda.rviz does not say '{known}' once.")
        text = text.replace(known, given)
    return text
