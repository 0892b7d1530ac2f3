"""What `replay.launch.py` starts to publish a bag: `ros2 bag play`, or this package's own player."""

from typing import Final

from spiking_controller.errors import ConfigError

ROS2_BAG: Final = "ros2bag"
"""Also the name of the ROS package that brings `ros2 bag`."""
OWN_PLAYER: Final = "spiking_controller"
CLOCK_RATE: Final = "100"
"""Messages on /clock per second of the bag."""
DISCOVERY_TIME: Final = "5"
"""Player and evaluator find each other before the bag begins, s; a busy machine needs some."""


def play_command(player: str, bag: str, rate: str, loop: bool) -> list[str]:
    """The command line of a player that publishes a bag with its time on /clock.

    Args:
        player: ROS2_BAG or OWN_PLAYER.
        bag: a rosbag2 folder or file.
        rate: bag seconds per second.
        loop: start again at the end.
    Raises:
        ConfigError: there is no such player.
    """
    programs = {
        # A recorded clock would contradict the player's.
        ROS2_BAG: (["ros2", "bag", "play"], ["--disable-keyboard-controls", "--exclude-topics", "/clock"]),
        OWN_PLAYER: ([OWN_PLAYER, "play"], []),
    }
    if player not in programs:
        raise ConfigError(f"player is '{player}'; give {' or '.join(programs)}.")
    program, own = programs[player]
    options = ["--clock", CLOCK_RATE, "--delay", DISCOVERY_TIME, "--rate", rate, *(["--loop"] if loop else [])]
    return [*program, bag, *options, *own]
