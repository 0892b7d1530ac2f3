"""Writes a policy's spiking layers as a NIR graph, and what NIR does not say as plain data beside it."""

from typing import Any, Final, Literal, NamedTuple

import nir
import numpy as np
import torch
from numpy.typing import NDArray

from spiking_controller.errors import ConfigError
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.config import NetworkConfig, ReadoutLeak, Reset
from spiking_controller.snn.network import SpikingNetwork

FloatArray = NDArray[np.float64]
Dialect = Literal["exact", "euler", "rockpool"]
DIALECTS: Final[dict[Dialect, str]] = {
    "exact": "syn = exp(-dt/tau_syn)*syn + in; mem = exp(-dt/tau_mem)*mem + (1 - exp(-dt/tau_mem))*syn",
    "euler": "syn = syn + dt/tau_syn*(w_in*in - syn); mem = mem + dt/tau_mem*(syn - mem)",
    "rockpool": "syn = exp(-dt/tau_syn)*(syn + in); mem = exp(-dt/tau_mem)*mem + syn",
}
"""How an importer steps CubaLIF from tick to tick; `in` is the output of the Affine node before it."""
_RESETS: Final[dict[Reset, str]] = {
    "subtract": "mem = mem - 1 after a spike",
    "zero": "mem = 0 after a spike",
}
_READOUTS: Final[dict[ReadoutLeak, str]] = {
    "membrane": "mem = keep_membrane*mem + (1 - keep_membrane)*syn; action = tanh(size*gain*mem)",
    "output": "mem = keep_membrane*tanh(mem) + (1 - keep_membrane)*gain*syn; action = tanh(size*mem)",
}


class NirExport(NamedTuple):
    """A policy's spiking layers.

    Attributes:
        graph: features in; spikes of layer k at `spikes_k` out.
        sidecar: plain data, everything else that a host needs.
    """

    graph: nir.NIRGraph
    sidecar: dict[str, Any]


def to_nir(checkpoint: Checkpoint, dialect: Dialect) -> NirExport:
    """The spiking layers of a checkpoint's policy.

    Args:
        checkpoint: with a policy of plain LIF neurons.
        dialect: of the importer, see DIALECTS.
    Raises:
        ConfigError: NIR cannot say what the network does; names what and why.
    """
    policy = checkpoint.policy
    config = _plain(checkpoint)
    if config.reset == "zero" and dialect == "rockpool":
        raise ConfigError(
            f"{checkpoint.source}: a spike sets the membrane to zero, but in Rockpool it subtracts the threshold; take "
            "another dialect, or train with `reset: subtract`."
        )
    network = policy.network
    assert isinstance(network, SpikingNetwork)
    with torch.no_grad():
        effective = network.effective()
    weights = effective.weights
    nodes: dict[str, nir.NIRNode] = {"features": nir.Input(input_type={"input": np.array([network.inputs])})}
    edges = []
    before = "features"
    for index, decay in enumerate(effective.decays):
        if index == 0:
            weight = weights.input_weight * effective.input_gain
        elif weights.compress:
            weight = weights.expand[index - 1] @ weights.compress[index - 1]
        else:
            weight = weights.expand[index - 1]
        synaptic, membrane = _double(decay.synaptic), _double(decay.membrane)
        scale = (1.0 - membrane) / synaptic if dialect == "rockpool" else np.ones_like(membrane)
        tau_synaptic, tau_membrane = (_time_constant(keep, config.tick, dialect) for keep in (synaptic, membrane))
        ones = np.ones_like(membrane)
        gain = tau_synaptic / config.tick if dialect == "euler" else ones
        number = index + 1
        nodes[f"weights_{number}"] = nir.Affine(scale[:, None] * _double(weight), scale * _double(weights.bias[index]))
        nodes[f"layer_{number}"] = nir.CubaLIF(
            tau_syn=tau_synaptic, tau_mem=tau_membrane, r=ones, v_leak=0.0 * ones, v_threshold=ones, w_in=gain
        )
        nodes[f"spikes_{number}"] = nir.Output(output_type={"output": np.array([ones.size])})
        edges += [
            (before, f"weights_{number}"),
            (f"weights_{number}", f"layer_{number}"),
            (f"layer_{number}", f"spikes_{number}"),
        ]
        before = f"layer_{number}"
    return NirExport(nir.NIRGraph(nodes, edges), _sidecar(checkpoint, config, network, dialect))


def _plain(checkpoint: Checkpoint) -> NetworkConfig:
    """The policy's configuration, if NIR can say what it asks for."""
    config = checkpoint.config.policy
    if not isinstance(config, NetworkConfig):
        raise ConfigError(f"{checkpoint.source}: the policy does not spike; NIR is for spiking networks, use --onnx.")
    if config.threshold.moves:
        raise ConfigError(
            f"{checkpoint.source}: the policy's neurons adapt, and NIR has no neuron whose threshold moves; "
            "train with `neuron: lif`, or use --onnx."
        )
    if config.recurrence != "none":
        raise ConfigError(
            f"{checkpoint.source}: the policy feeds spikes back by {config.recurrence}, in an order of layers and "
            "ticks that NIR does not define; train with `recurrence: none`, or use --onnx."
        )
    if config.fixed_point is not None or config.delta is not None:
        raise ConfigError(
            f"{checkpoint.source}: the policy's state is in fixed point or its features are sent on change, which NIR "
            "does not say; export the checkpoint that was deployed from."
        )
    return config


def _sidecar(
    checkpoint: Checkpoint, config: NetworkConfig, network: SpikingNetwork, dialect: Dialect
) -> dict[str, Any]:
    with torch.no_grad():
        readout = [_double(weight).tolist() for weight in network.weights().readout_weight]
        keep = torch.exp(-config.tick * torch.exp(-network.readout_log_tau)).expand(-1, network.outputs)
        gain = _double(network.log_output_gain.exp())
    contract = checkpoint.contract
    return {
        "checkpoint": checkpoint.metadata["sha256"],
        "dialect": dialect,
        "equations": DIALECTS[dialect],
        "dt": config.tick,
        "ticks_per_control_step": config.ticks,
        "control_period": contract.control_period,
        "spike": "mem > 1, at most one per tick",
        "reset": _RESETS[config.reset],
        "delay": "none: a layer receives the spikes of the layer before in the same tick",
        "input": "the features, computed once per control step and constant over its ticks",
        "input_delay_ticks": config.delay,
        "one_tick_per_layer": _one_tick_per_layer(config),
        "features": _features(checkpoint.policy),
        "observation": contract.observation,
        "joint_names": contract.joint_names,
        "controlled_joints": contract.controlled_joints,
        "readout": {
            "where": "on the host, at every tick",
            "equations": f"c = sum over layers of weights @ spikes; syn = keep_synaptic*syn + c; "
            f"{_READOUTS[config.readout_leak]} after the last tick",
            "size": "s of the features' normalisation; 1 without one",
            "weights": readout,
            "keep_synaptic": _double(keep[0]).tolist(),
            "keep_membrane": _double(keep[1]).tolist(),
            "gain": gain.tolist(),
        },
        "torque_law": {
            "equation": "torque = torque_scale*action - damping*velocity",
            "torque_scale": checkpoint.task.torque_scale.tolist(),
            "damping": contract.damping,
        },
    }


def _one_tick_per_layer(config: NetworkConfig) -> dict[str, Any] | None:
    """Delays that make the same network of layers that receive spikes one tick late; None if its input is too early."""
    late = len(config.hidden) - 1
    if config.delay < late:
        return None
    return {
        "input_delay_ticks": config.delay - late,
        "readout_delay_ticks": {f"spikes_{number + 1}": late - number for number in range(late + 1)},
    }


def _features(policy: Policy) -> dict[str, Any]:
    """What the features are, block by block in order."""
    options, m, d = policy.features.options, policy.features.controlled, policy.features.goal_dimensions
    normalisation = policy.normalisation
    position, hand = ("joint_position as in the observation", m), ("hand_position, m", d)
    velocity = [("joint_velocity as in the observation", m)] if options.velocity else []
    angles = [("sin(joint_position in rad)", m), ("cos(joint_position in rad)", m)] if options.trigonometric else []
    action = [("previous action", m)] if options.previous_action else []
    goal = [("goal, m", d), *((f"tanh({gain:g}*(goal - hand))", d) for gain in options.target_gains)]
    if normalisation is None:
        blocks = [position, *velocity, hand, *angles, *action, *goal]
        rule = None
    else:
        moving = [*velocity, *action, (f"tanh({normalisation.error_gain:g}*(goal - hand))", d)]
        divided = [(f"z/s of z = {what}", size) for what, size in moving]
        blocks = [position, hand, *angles, *goal, *divided, ("log(s/floor)/log(1/floor)", 1)]
        rule = {"s": "sqrt(mean of all z squared + floor^2)", "floor": normalisation.floor}
    assert sum(size for _, size in blocks) == policy.network.inputs
    return {"blocks": [{"what": what, "size": size} for what, size in blocks], "normalisation": rule}


def _time_constant(keep: FloatArray, tick: float, dialect: Dialect) -> FloatArray:
    """That gives a decay per tick of `keep` in the dialect, s."""
    return np.asarray(tick / (1.0 - keep) if dialect == "euler" else -tick / np.log(keep))


def _double(values: torch.Tensor) -> FloatArray:
    return np.asarray(values.detach().numpy(), dtype=np.float64)
