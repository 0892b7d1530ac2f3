"""Finds out who else publishes what only one node may: the arm's joint states and its commands."""

from typing import Final

from rclpy.node import Node

from spiking_controller.control.fault import Fault

UNKNOWN: Final = "_UNKNOWN_"
"""Part of the name of a node that discovery has not told yet."""


class Rivals:
    """Looks at the publishers of two topics; never waits."""

    def __init__(self, node: Node, states: str, commands: str) -> None:
        """Look through this node.

        Args:
            node: publishes the commands itself.
            states: topic of the joint states.
            commands: topic of the commands.
        """
        self._node = node
        self._states = states
        self._commands = commands

    def problem(self, states_conflict: bool) -> Fault | None:
        """Why the arm must not be driven; None if nobody is in the way.

        Args:
            states_conflict: the joint states look as if they came from two sources. Whoever publishes other joints on
                the same topic, a gripper, does no harm.
        """
        own = self._node.get_fully_qualified_name()
        others = [name for name in self._publishers(self._commands) if name != own]
        if others:
            topic = self._node.resolve_topic_name(self._commands)
            return Fault(
                "two publishers of commands",
                f"{topic} has commands from {own} and from {', '.join(others)}; stop one of them, or give it a "
                "namespace of its own.",
            )
        sources = self._publishers(self._states)
        if states_conflict and len(sources) > 1:
            topic = self._node.resolve_topic_name(self._states)
            return Fault(
                "two publishers of joint states",
                f"{topic} has this arm's joints from several of {', '.join(sources)}; stop one of them, or give it a "
                "namespace of its own.",
            )
        return None

    def _publishers(self, topic: str) -> list[str]:
        """Full names of the nodes that publish it, one for each publisher, in order."""
        return sorted(
            f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
            for publisher in self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(topic))
            if UNKNOWN not in publisher.node_name
        )
