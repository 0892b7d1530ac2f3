"""Declares a node's parameters in one table, each with description, unit and range; wrong values get a sentence."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from spiking_controller.errors import ConfigError

_BUILT_IN = ("use_sim_time", "qos_overrides.", "start_type_description_service")
_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a decimal number", str: "text"}


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        name: as in the parameter file.
        default: also says the type.
        description: one line for `ros2 param describe`.
        low, high: range of a number, in SI units.
        fixed: it cannot change while the node runs.
        choices: of a text.
    """

    name: str
    default: bool | int | float | str | list[str]
    description: str
    low: float = 0.0
    high: float = 0.0
    fixed: bool = True
    choices: Sequence[str] = ()


def declare_parameters(node: Node, specs: Sequence[ParameterSpec]) -> None:
    """Declare all of them on a node; a parameter that was given but not declared is warned of.

    Raises:
        ConfigError: a given value has another type or lies outside the range.
    """
    for spec in specs:
        try:
            value = node.declare_parameter(spec.name, spec.default, _descriptor(spec)).value
        except (InvalidParameterTypeException, InvalidParameterValueException):
            raise _refusal(node, spec, node._parameter_overrides[spec.name].value) from None
        if spec.choices and value not in spec.choices:
            raise _refusal(node, spec, value)
    known = [spec.name for spec in specs]
    for name in node._parameter_overrides:
        if not node.has_parameter(name) and not name.startswith(_BUILT_IN):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
            node.get_logger().warning(f"parameter '{name}' does not exist and has no effect; {hint}")


def value_of(node: Node, name: str) -> Any:
    """The present value of a declared parameter."""
    return node.get_parameter(name).value


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=spec.description,
        read_only=spec.fixed,
        additional_constraints=f"one of {', '.join(spec.choices)}" if spec.choices else "",
    )
    if isinstance(spec.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=spec.low, to_value=spec.high)]
    elif isinstance(spec.default, int) and not isinstance(spec.default, bool):
        descriptor.integer_range = [IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=1)]
    return descriptor


def _refusal(node: Node, spec: ParameterSpec, value: object) -> ConfigError:
    return ConfigError(f"parameter {spec.name} of {node.get_name()} is {value!r}; give {_wanted(spec)}.")


def _wanted(spec: ParameterSpec) -> str:
    if spec.choices:
        return f"one of {', '.join(spec.choices)}"
    if isinstance(spec.default, list):
        return "a list of texts"
    kind = _KINDS[type(spec.default)]
    if isinstance(spec.default, bool | str):
        return kind
    example = f", such as {spec.default!r}" if isinstance(spec.default, float) else ""
    return f"{kind} from {spec.low:g} to {spec.high:g}{example}"
