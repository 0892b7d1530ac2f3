"""Training diagnoses itself: what an iteration's updates measured, and what is wrong, in one sentence with the fix.

Nothing here touches a network. `Measurement` sums up the updates of an iteration, `Monitor` judges it by the bounds of
the configuration (`config.Diagnosis`); what follows from a finding is done by the training loop.
"""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spiking_controller.networks.config import Action, ModelUpdates, PolicyUpdates, TrainingConfig
from spiking_controller.training.updates import NETWORKS, ModelUpdate, NetworkName, PolicyUpdate

MEASUREMENT_COLUMNS = (
    "model_error_ratio",
    *(
        f"{network}_{quantity}"
        for network in ("policy", "model")
        for quantity in ("gradient_norm", "rate_hz", "silent_share", "saturated_share")
    ),
)
"""What of a measurement stands in the log of a run: see `Measurement.columns`."""

FINDING_COLUMNS = ("iteration", "condition", "where", "value", "bound", "action", "sentence")
"""What of a finding stands in the run's log of findings: see `Finding`."""


class NetworkMeasurement(NamedTuple):
    """What the updates of one network showed.

    Attributes:
        gradient_norm: median before clipping; None without updates.
        rate_hz: mean firing rate of a neuron, Hz; None without spikes.
        silent, saturated: which neurons did not fire once, and which fired in nearly every tick, [neurons], layer by
            layer.
    """

    gradient_norm: float | None
    rate_hz: float | None
    silent: tuple[Tensor, ...]
    saturated: tuple[Tensor, ...]

    @classmethod
    def of(
        cls, updates: Sequence[ModelUpdate] | Sequence[PolicyUpdate], tick: float, saturated_activity: float
    ) -> "NetworkMeasurement":
        """Sum up updates.

        Args:
            updates: of one network.
            tick: its tick length, s.
            saturated_activity: spikes per tick above which a neuron counts as saturated.
        """
        layers = zip(*(update.activity for update in updates), strict=True)
        activity = [torch.stack(layer).mean(0) for layer in layers]
        spikes_per_tick = _mean(activity)
        return cls(
            float(np.median([update.gradient_norm for update in updates])) if updates else None,
            None if spikes_per_tick is None else spikes_per_tick / tick,
            tuple(layer == 0 for layer in activity),
            tuple(layer > saturated_activity for layer in activity),
        )


class Measurement(NamedTuple):
    """What the updates of one iteration showed.

    Attributes:
        policy, forward_model: of each network.
        model_error_ratio: mean squared error of the forward model relative to that of predicting that nothing moves, on
            the same windows; None without updates.
    """

    policy: NetworkMeasurement
    forward_model: NetworkMeasurement
    model_error_ratio: float | None

    @classmethod
    def of(
        cls, config: TrainingConfig, model_updates: Sequence[ModelUpdate], policy_updates: Sequence[PolicyUpdate]
    ) -> "Measurement":
        """Sum up the updates of an iteration."""
        saturated = config.diagnosis.saturated_activity
        persistence_error = sum(update.persistence_error for update in model_updates)
        return cls(
            NetworkMeasurement.of(policy_updates, config.policy.tick, saturated),
            NetworkMeasurement.of(model_updates, config.forward_model.tick, saturated),
            sum(update.error for update in model_updates) / persistence_error if persistence_error > 0 else None,
        )

    def columns(self) -> dict[str, float | None]:
        """The figures of `MEASUREMENT_COLUMNS`, over all neurons of a network; None where nothing was measured."""
        figures: list[float | None] = [self.model_error_ratio]
        for network in (self.policy, self.forward_model):
            figures += [network.gradient_norm, network.rate_hz, _mean(network.silent), _mean(network.saturated)]
        return dict(zip(MEASUREMENT_COLUMNS, figures, strict=True))


def _mean(layers: Sequence[Tensor]) -> float | None:
    return float(torch.cat(tuple(layers)).float().mean()) if layers else None


class Condition(StrEnum):
    """What can be wrong with a run. The values are the keys of `config.Diagnosis` that say what follows."""

    NOT_FINITE = "not_finite"
    SILENT_LAYER = "silent_layer"
    SATURATED_LAYER = "saturated_layer"
    EXPLODING_GRADIENT = "exploding_gradient"
    MODEL_WORSE_THAN_NOTHING = "model_worse_than_nothing"


_ADAPTATION = {
    Condition.NOT_FINITE: "both networks went back to the end of the last iteration and learn half as fast",
    Condition.SILENT_LAYER: "the bias of these neurons was raised",
    Condition.SATURATED_LAYER: "the bias of these neurons was lowered",
    Condition.EXPLODING_GRADIENT: "the network learns half as fast",
    Condition.MODEL_WORSE_THAN_NOTHING: "it learns twice as long and the policy waits",
}
"""What adapting to a condition changes, for the user; the training loop does it."""


class Symptom(NamedTuple):
    """One bound that is broken.

    Attributes:
        condition: what is wrong.
        network, layer: where; no layer if it concerns the whole network.
        value, bound: what was measured, and the bound.
        observation, fix: the halves of the sentence for the user.
        neurons: of the layer, those that are affected, bool, [neurons].
    """

    condition: Condition
    network: NetworkName
    layer: int | None
    value: float
    bound: float
    observation: str
    fix: str
    neurons: Tensor | None = None

    @property
    def where(self) -> str:
        """The network, or the layer as recordings of spikes name it."""
        return self.network if self.layer is None else f"{self.network}/hidden{self.layer + 1}"


class Finding(NamedTuple):
    """A symptom from which something follows.

    Attributes:
        iteration: in which it was found; 0 in the updates before the first.
        symptom: what is wrong.
        action: what follows.
        sentence: where, what, value, bound and fix, for the user.
    """

    iteration: int
    symptom: Symptom
    action: Action
    sentence: str

    def row(self) -> dict[str, Any]:
        """The figures of `FINDING_COLUMNS`."""
        symptom = self.symptom
        figures = (symptom.condition.value, symptom.where, symptom.value, symptom.bound, self.action, self.sentence)
        return dict(zip(FINDING_COLUMNS, (self.iteration, *figures), strict=True))


def not_finite(config: TrainingConfig, network: NetworkName, observation: str) -> Symptom:
    """The symptom that a network's loss, gradient or weights hold NaN or infinity."""
    return Symptom(
        Condition.NOT_FINITE, network, None, math.nan, math.inf, observation, _lower_learning_rate(config, network)
    )


def symptoms(config: TrainingConfig, measurement: Measurement, iteration: int) -> Iterator[Symptom]:
    """Everything that is beyond its bound in an iteration's measurement."""
    for network in NETWORKS:
        yield from _layer_symptoms(config, network, getattr(measurement, network))
        yield from _gradient_symptoms(config, network, getattr(measurement, network))
    bounds, ratio = config.diagnosis, measurement.model_error_ratio
    if ratio is not None and ratio >= bounds.model_error_ratio and iteration > bounds.model_grace:
        yield Symptom(
            Condition.MODEL_WORSE_THAN_NOTHING,
            "forward_model",
            None,
            ratio,
            bounds.model_error_ratio,
            f"its error is {ratio:.3g} times that of predicting 'nothing moves' (bound {bounds.model_error_ratio:g})",
            f"raise model_updates.per_iteration (now {config.model_updates.per_iteration}) or "
            + _lower_learning_rate(config, "forward_model"),
        )


def _layer_symptoms(config: TrainingConfig, network: NetworkName, measured: NetworkMeasurement) -> Iterator[Symptom]:
    bounds, (key, options) = config.diagnosis, _options(config, network)
    for layer, (silent, saturated) in enumerate(zip(measured.silent, measured.saturated, strict=True)):
        fraction = float(silent.float().mean())
        if fraction > bounds.silent_share:
            yield Symptom(
                Condition.SILENT_LAYER,
                network,
                layer,
                fraction,
                bounds.silent_share,
                f"{fraction:.1%} of its neurons did not fire once (bound {bounds.silent_share:.1%})",
                f"raise {key}.activity.lower (now {options.activity.lower:g} Hz)",
                silent,
            )
        fraction = float(saturated.float().mean())
        if fraction > bounds.saturated_share:
            upper = options.activity.upper
            change, now = ("lower", f"{upper:g} Hz") if upper > 0 else ("set", "off")
            yield Symptom(
                Condition.SATURATED_LAYER,
                network,
                layer,
                fraction,
                bounds.saturated_share,
                f"{fraction:.1%} of its neurons fired in more than {bounds.saturated_activity:.1%} of all ticks "
                f"(bound {bounds.saturated_share:.1%})",
                f"{change} {key}.activity.upper (now {now}) below the network's {measured.rate_hz:.0f} Hz",
                saturated,
            )


def _gradient_symptoms(config: TrainingConfig, network: NetworkName, measured: NetworkMeasurement) -> Iterator[Symptom]:
    norm, bound = measured.gradient_norm, config.diagnosis.gradient_factor * config.gradient_norm
    key, options = _options(config, network)
    if norm is not None and norm > bound:
        yield Symptom(
            Condition.EXPLODING_GRADIENT,
            network,
            None,
            norm,
            bound,
            f"the median norm of its gradient before clipping is {norm:.4g} (bound {bound:g})",
            f"lower {key}.unroll (now {options.unroll}) or " + _lower_learning_rate(config, network),
        )


def _options(config: TrainingConfig, network: NetworkName) -> tuple[str, ModelUpdates | PolicyUpdates]:
    """The configuration of a network's updates, and its key."""
    if network == "policy":
        return "policy_updates", config.policy_updates
    return "model_updates", config.model_updates


def _lower_learning_rate(config: TrainingConfig, network: NetworkName) -> str:
    key, options = _options(config, network)
    return f"lower {key}.learning_rate (now {options.learning_rate:g})"


def affected_rates(symptom: Symptom) -> tuple[NetworkName, ...]:
    """The networks whose learning rates are halved when training adapts to a symptom."""
    if symptom.condition is Condition.NOT_FINITE:
        return NETWORKS
    return (symptom.network,) if symptom.condition is Condition.EXPLODING_GRADIENT else ()


class Monitor:
    """Judges iteration after iteration what follows, and remembers what a resumed run must know.

    Attributes:
        halvings: how often each network's learning rates were halved.
    """

    def __init__(self, config: TrainingConfig) -> None:
        """Judge by the bounds and actions of this run's `diagnosis`."""
        self._config = config
        self._in_a_row: dict[str, int] = {}
        self.halvings: dict[str, int] = dict.fromkeys(NETWORKS, 0)

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain data."""
        return {"in_a_row": dict(self._in_a_row), "halvings": dict(self.halvings)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where the monitor with this state stopped; an empty state is that of a new one."""
        self._in_a_row = dict(state.get("in_a_row", {}))
        self.halvings.update(state.get("halvings", {}))

    @property
    def policy_waits(self) -> bool:
        """Whether the policy must not learn until the forward model is better than predicting that nothing moves."""
        bounds, condition = self._config.diagnosis, Condition.MODEL_WORSE_THAN_NOTHING
        held = self._in_a_row.get(f"{condition} forward_model", 0)
        return bounds.model_worse_than_nothing == "adapt" and held >= bounds.patience

    def examine(self, iteration: int, measurement: Measurement) -> list[Finding]:
        """What has been wrong for so many iterations in a row that something follows; call once an iteration."""
        before, self._in_a_row = self._in_a_row, {}
        found: list[Finding] = []
        for symptom in symptoms(self._config, measurement, iteration):
            key = f"{symptom.condition} {symptom.where}"
            held = before.get(key, 0) + 1
            if held >= self._config.diagnosis.patience:
                finding = self.judge(iteration, symptom)
                found.append(finding)
                # What was changed needs time to show; only the policy's waiting lasts as long as its cause.
                if symptom.condition is not Condition.MODEL_WORSE_THAN_NOTHING or finding.action != "adapt":
                    held = 0
            self._in_a_row[key] = held
        return found

    def judge(self, iteration: int, symptom: Symptom) -> Finding:
        """Decide what follows from a symptom without further patience; counts halvings, and stops when they run out."""
        bounds = self._config.diagnosis
        action: Action = getattr(bounds, symptom.condition)
        slowed = affected_rates(symptom)
        observation = symptom.observation
        if action == "adapt" and slowed:
            if max(self.halvings[network] for network in slowed) < bounds.most_halvings:
                for network in slowed:
                    self.halvings[network] += 1
            else:
                action = "stop"
                observation += f" after {bounds.most_halvings} halvings of the learning rates"
        done = f" (for now, {_ADAPTATION[symptom.condition]})" if action == "adapt" else ""
        sentence = f"{symptom.where}, iteration {iteration}: {observation}; {symptom.fix}{done}."
        return Finding(iteration, symptom, action, sentence)
