"""Turns trained networks into those that a chip runs: weights multiplied out and rounded, features sent on change."""

from dataclasses import asdict, dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from spiking_controller.errors import ConfigError
from spiking_controller.networks.checkpoint import Checkpoint, build_networks, dump_checkpoint, parse_checkpoint
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.network import SpikingNetwork


@dataclass(frozen=True)
class Precision:
    """How a chip holds numbers; the meaning of each is that of the same key of `snn.config.NetworkConfig`."""

    weight_bits: int | None = None
    state_bits: int | None = None
    state_fraction_bits: int | None = None
    delta: float | None = None


def latent_networks(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Which of the two networks have weights through a latent dimension, W = A·B."""
    return tuple(name for name in ("policy", "forward_model") if _has_latent_weights(_spiking(checkpoint, name)))


def deployed(checkpoint: Checkpoint, precision: Precision, multiplied_out: tuple[str, ...] = ()) -> Checkpoint:
    """The checkpoint as a chip runs it.

    The learned gain of the features goes into the rounded weights, so that they are integers times powers of two.

    Args:
        checkpoint: of two spiking networks.
        precision: of both.
        multiplied_out: networks whose latent weights A·B become one full matrix W.
    Raises:
        ConfigError: a network is not spiking, or a precision is out of range.
    """

    def on_chip(name: str) -> NetworkConfig:
        own = _spiking(checkpoint, name).config
        return replace(own, **asdict(precision), rank=0 if name in multiplied_out else own.rank)

    config = replace(checkpoint.config, policy=on_chip("policy"), forward_model=on_chip("forward_model"))
    policy, forward_model = build_networks(config)
    _convert(checkpoint.policy, policy)
    _convert(checkpoint.forward_model, forward_model)
    data = dump_checkpoint(policy, forward_model, config, parent=checkpoint.metadata["sha256"])
    return parse_checkpoint(data, checkpoint.source)


def _spiking(checkpoint: Checkpoint, name: str) -> SpikingNetwork:
    network = getattr(checkpoint, name).network
    if not isinstance(network, SpikingNetwork):
        raise ConfigError(
            f"{checkpoint.source}: the {name.replace('_', ' ')} is not spiking; give a checkpoint of spiking networks."
        )
    return network


def _has_latent_weights(network: SpikingNetwork) -> bool:
    return len(network.compress) + len(network.recurrent_compress) > 0


@torch.no_grad()
def _convert(trained: Policy | ForwardModel, target: Policy | ForwardModel) -> None:
    """Give `target` the weights of `trained`, as the configuration of its network wants them."""
    before, after = trained.network, target.network
    assert isinstance(before, SpikingNetwork)
    assert isinstance(after, SpikingNetwork)
    tensors: dict[str, Tensor] = trained.state_dict()
    if _has_latent_weights(before) and not _has_latent_weights(after):
        for kind in ("", "recurrent_"):
            expand, compress = (getattr(before, f"{kind}{part}") for part in ("expand", "compress"))
            for index, factors in enumerate(zip(expand, compress, strict=True)):
                tensors[f"network.{kind}expand.{index}"] = torch.mm(*factors)
                del tensors[f"network.{kind}compress.{index}"]
    if after.config.weight_bits is not None:
        gain = tensors["network.log_input_gain"]
        tensors["network.input_weight"] = tensors["network.input_weight"] * gain.exp()
        tensors["network.log_input_gain"] = torch.zeros_like(gain)
    target.load_state_dict(tensors)
    weights = after.weights()
    after.input_weight.copy_(weights.input_weight)
    parameters = chain(
        after.bias,
        after.expand,
        after.compress,
        after.recurrent_expand,
        after.recurrent_compress,
        after.readout_weight,
    )
    read_out = weights.readout_weight[-len(after.readout_weight) :]
    for parameter, rounded in zip(parameters, chain(*weights[1:-1], read_out), strict=True):
        parameter.copy_(rounded)
