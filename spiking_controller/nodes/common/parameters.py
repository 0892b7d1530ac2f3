"""Declares a node's parameters in one table, each with description, unit and range; wrong values get a sentence."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from spiking_controller.errors import ConfigError, SpikingControllerError

_BUILT_IN = ("use_sim_time", "qos_overrides.", "start_type_description_service")
FOR_ALL_NODES = ("arm", "gravity_compensation")
"""What config/panda.yaml gives to every node, whether or not it has the parameter."""
_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a decimal number", str: "text"}


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        name: as in the parameter file.
        default: also says the type.
        description: one line for `ros2 param describe`.
        low, high: range of a number, or of each number of a list, in SI units.
        fixed: it cannot change while the node runs.
        choices: of a text.
    """

    name: str
    default: bool | int | float | str | list[str] | list[float]
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
        if value is None:
            # ROS cannot tell of which type an empty list is.
            raise _refusal(node, spec, [])
        _check(node, spec, value)
    known = [spec.name for spec in specs]
    # rclpy has no public way to what was given on the command line or in a file, but was not declared.
    for name in node._parameter_overrides:
        if not node.has_parameter(name) and name not in FOR_ALL_NODES and not name.startswith(_BUILT_IN):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
            node.get_logger().warning(f"parameter '{name}' does not exist and has no effect; {hint}")


def value_of(node: Node, name: str) -> Any:
    """The present value of a declared parameter."""
    return node.get_parameter(name).value


def follow_changes(node: Node, specs: Sequence[ParameterSpec], apply: Callable[[Mapping[str, Any]], None]) -> None:
    """From now on, hand changed values to `apply`, before they are stored.

    What the table or `apply` refuses, by raising one of our errors, stays as it was; who asked gets the sentence.

    Args:
        node: whose parameters were declared from `specs`.
        specs: all of them; those that are `fixed` never arrive.
        apply: takes the new values by name.
    """
    by_name = {spec.name: spec for spec in specs}

    def on_set(parameters: list[Parameter]) -> SetParametersResult:
        changed = {each.name: each.value for each in parameters if each.name in by_name}
        try:
            for name, value in changed.items():
                _check(node, by_name[name], value)
            if changed:
                apply(changed)
        except SpikingControllerError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_set)


def _check(node: Node, spec: ParameterSpec, value: Any) -> None:
    """What rclpy does not check: choices, and the range of each number in a list."""
    numbers = value if _is_number_list(spec) else []
    if (spec.choices and value not in spec.choices) or not all(spec.low <= number <= spec.high for number in numbers):
        raise _refusal(node, spec, value if isinstance(value, str) else list(value))


def _is_number_list(spec: ParameterSpec) -> bool:
    return isinstance(spec.default, list) and isinstance(spec.default[0], float)


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=spec.description,
        read_only=spec.fixed,
        additional_constraints=f"one of {', '.join(spec.choices)}" if spec.choices else "",
    )
    if isinstance(spec.default, float) or _is_number_list(spec):
        descriptor.floating_point_range = [FloatingPointRange(from_value=spec.low, to_value=spec.high)]
    elif isinstance(spec.default, int) and not isinstance(spec.default, bool):
        descriptor.integer_range = [IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=1)]
    return descriptor


def _refusal(node: Node, spec: ParameterSpec, value: object) -> ConfigError:
    return ConfigError(f"parameter {spec.name} of {node.get_name()} is {value!r}; give {_wanted(spec)}.")


def _wanted(spec: ParameterSpec) -> str:
    if spec.choices:
        return f"one of {', '.join(spec.choices)}"
    if _is_number_list(spec):
        return f"a list of decimal numbers from {spec.low:g} to {spec.high:g}, such as {spec.default!r}"
    if isinstance(spec.default, list):
        return f"a list of texts, such as {spec.default!r}"
    kind = _KINDS[type(spec.default)]
    if isinstance(spec.default, bool | str):
        return kind
    example = f", such as {spec.default!r}" if isinstance(spec.default, float) else ""
    return f"{kind} from {spec.low:g} to {spec.high:g}{example}"
