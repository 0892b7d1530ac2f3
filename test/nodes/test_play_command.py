"""What replay.launch.py starts to publish a bag is a command line that the player understands."""

import argparse
from pathlib import Path

import pytest

from spiking_controller.commands import play as player
from spiking_controller.errors import ConfigError
from spiking_controller.nodes.clients.play_command import OWN_PLAYER, ROS2_BAG, play_command


@pytest.mark.parametrize("loop", [False, True])
def test_the_own_player_understands_its_command_line(loop: bool) -> None:
    program, command, *options = play_command(OWN_PLAYER, "run1", "2.0", loop)
    assert (program, command) == ("spiking_controller", "play")
    parser = argparse.ArgumentParser()
    player.add_arguments(parser)
    parsed = parser.parse_args(options)
    assert (parsed.bag, parsed.rate, parsed.loop, parsed.clock) == (Path("run1"), 2.0, loop, 100.0)
    assert parsed.delay > 0.0


def test_ros2_bag_leaves_the_recorded_clock_out() -> None:
    command = play_command(ROS2_BAG, "run1", "1.0", False)
    assert command[:6] == ["ros2", "bag", "play", "run1", "--clock", "100"]
    assert "--loop" not in command
    assert command[-2:] == ["--exclude-topics", "/clock"]


def test_an_unknown_player_is_refused() -> None:
    with pytest.raises(ConfigError, match="player is 'tape'; give ros2bag or spiking_controller"):
        play_command("tape", "run1", "1.0", False)
