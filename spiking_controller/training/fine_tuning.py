"""Starts a run from the weights of a checkpoint instead of from random ones."""

from typing import Any, Final

from spiking_controller.errors import ConfigError
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.networks.config import TrainingConfig, config_to_dict
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.snn.network import SpikingNetwork

NETWORK_KEYS_THAT_MAY_DIFFER: Final = frozenset(
    {
        "ticks",
        "tick",
        "delay",
        "reset",
        "surrogate",
        "initialisation",
        "rate",
        "feed_forward_variance",
        "tau_membrane",
        "tau_synaptic",
        "tau_adaptation",
        "tau_readout_membrane",
        "tau_readout_synaptic",
        "longest_tau",
        "longest_readout_tau",
        "threshold_decay",
        "threshold_floor",
        "adaptation_strength",
        "input_gain",
        "output_gain",
    }
)
"""Weights stay what they are under another value of these; initial values come with the weights and have no effect."""


def start_from(checkpoint: Checkpoint, config: TrainingConfig, policy: Policy, model: ForwardModel) -> None:
    """Give both networks the weights of a checkpoint that fits the configuration.

    The forward model keeps the scale of its predictions, `ForwardModel.change_scale`: its readout has learned what it
    says in that unit, and fitted anew, the scale would multiply every prediction. Ticks of another length are converted
    (`SpikingNetwork.convert_ticks`).

    Args:
        checkpoint: where the weights come from.
        config: of the run.
        policy, model: the run's networks, built from `config`; changed in place.
    Raises:
        ConfigError: the weights would not fit, or would mean something else; names the key and both values.
    """
    check_fits(checkpoint, config)
    for network, trained in ((policy, checkpoint.policy), (model, checkpoint.forward_model)):
        network.load_state_dict(trained.state_dict())
        inner, before = network.network, trained.network
        if isinstance(inner, SpikingNetwork) and isinstance(before, SpikingNetwork):
            inner.convert_ticks(before.config.tick)


def check_fits(checkpoint: Checkpoint, config: TrainingConfig) -> None:
    """Refuse a configuration under which the weights of a checkpoint would not fit or would mean something else.

    Losses, schedules, learning rates, goals, exploration, task options and the keys of
    `NETWORK_KEYS_THAT_MAY_DIFFER` may differ; the arm, its scaling, what the networks see and predict, and what they
    are made of must not.

    Raises:
        ConfigError: names the checkpoint, the first key that differs and both values.
    """
    was, now = (_what_weights_mean(each) for each in (checkpoint.config, config))
    for key in (*was, *(key for key in now if key not in was)):
        if was.get(key) != now.get(key):
            raise ConfigError(
                f"{checkpoint.source}: {key} is {was.get(key)!r}, but the run's configuration has {now.get(key)!r}; "
                "the weights do not fit: give that key the checkpoint's value, or train without --from."
            )


def _what_weights_mean(config: TrainingConfig) -> dict[str, Any]:
    """Everything in a configuration that decides what weights are for, key by key."""
    task, plain = config.reach_task, config_to_dict(config)
    meaning: dict[str, Any] = {
        "arm": task.arm.name,
        "control_period": task.control_period,
        "soft_limit_fraction": task.soft_limit_fraction,
        "predicts": config.predicts,
    }
    meaning.update({f"features.{key}": value for key, value in plain["features"].items()})
    for name in ("forward_model", "policy"):
        kept = {key: value for key, value in plain[name].items() if key not in NETWORK_KEYS_THAT_MAY_DIFFER}
        meaning.update({f"{name}.{key}": value for key, value in kept.items()})
    return meaning
