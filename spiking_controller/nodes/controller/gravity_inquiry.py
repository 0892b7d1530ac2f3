"""Asks whoever publishes the joint states whether the robot carries its own weight.

The bridge has the parameter `gravity_compensation`. A real driver has not; then the controller's own parameter is all
there is to go by.
"""

import time
from dataclasses import dataclass

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

from spiking_controller.control.fault import Fault

PARAMETER = "gravity_compensation"
PATIENCE = 5.0
"""A publisher whose parameters cannot be asked for after this time tells nothing, s."""


@dataclass
class _Question:
    client: Client | None
    asked_at: float
    answer: Future | None = None
    told: bool | None = None


class GravityInquiry:
    """Asks each publisher of a topic, again where the answer is lost; never waits for one.

    Attributes:
        problem: why the robot must not be driven; None if there is no reason.
    """

    def __init__(self, node: Node, topic: str, expected: bool, convention: str) -> None:
        """Ask through this node.

        Args:
            node: asks; it must not publish the topic itself.
            topic: of the joint states.
            expected: what the robot must say.
            convention: that the networks were trained with, for the sentence.
        """
        self._node = node
        self._topic = topic
        self._expected = expected
        self._convention = convention
        self._questions: dict[str, _Question] = {}
        self.problem: Fault | None = None

    @property
    def summary(self) -> str:
        """What is known, for /diagnostics."""
        told = [f"{name}: {str(each.told).lower()}" for name, each in self._questions.items() if each.told is not None]
        return ", ".join(told) or "not told by the robot"

    def look(self) -> None:
        """Find out who publishes now; ask those who are new, forget those who are gone."""
        present = {
            f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
            for publisher in self._node.get_publishers_info_by_topic(self._topic)
            if "_UNKNOWN_" not in publisher.node_name
        }
        for name in self._questions.keys() - present:
            self._hang_up(self._questions.pop(name))
        for name in present - self._questions.keys():
            client = self._node.create_client(GetParameters, f"{name}/get_parameters")
            self._questions[name] = _Question(client, time.monotonic())
        self._judge()

    def poll(self) -> None:
        """Send questions that can be sent, read answers that have come."""
        for question in self._questions.values():
            if question.client is None:
                continue
            if question.answer is None and question.client.service_is_ready():
                question.answer = question.client.call_async(GetParameters.Request(names=[PARAMETER]))
            elif question.answer is not None and question.answer.done():
                values = question.answer.result().values
                if values and values[0].type == ParameterType.PARAMETER_BOOL:
                    question.told = values[0].bool_value
                    self._judge()
                self._hang_up(question)
            elif time.monotonic() - question.asked_at > PATIENCE and question.answer is not None:
                question.client.remove_pending_request(question.answer)
                question.answer, question.asked_at = None, time.monotonic()
            elif time.monotonic() - question.asked_at > PATIENCE:
                self._hang_up(question)

    def close(self) -> None:
        """Forget everything."""
        for question in self._questions.values():
            self._hang_up(question)
        self._questions.clear()

    def _judge(self) -> None:
        expected = str(self._expected).lower()
        self.problem = None
        for name, question in self._questions.items():
            if question.told is not None and question.told != self._expected:
                self.problem = Fault(
                    "gravity convention",
                    f"{name} has {PARAMETER} {str(question.told).lower()}, but the networks were trained with the "
                    f"gravity convention '{self._convention}'; start it with {PARAMETER}:={expected}, or use another "
                    "model.",
                )

    def _hang_up(self, question: _Question) -> None:
        if question.client is not None:
            self._node.destroy_client(question.client)
            question.client = None
