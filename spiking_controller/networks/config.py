"""Training configuration: every number of a run in one dataclass, read from YAML, saved with the checkpoint."""

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import dacite
import yaml

from spiking_controller.errors import ConfigError
from spiking_controller.networks.features import ARCHITECTURES, AnyNetworkConfig, Features, architecture_of
from spiking_controller.networks.forward_model import Predicts
from spiking_controller.robots.arm import is_arm_file
from spiking_controller.robots.limits import Braking
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.snn.regularisers import ActivityRegulariser
from spiking_controller.tasks.reach import ReachTask, VelocitySource, get_task


@dataclass(frozen=True)
class TaskOptions:
    """What a run may change about its task; see `tasks.reach.ReachTask` for the meaning of each."""

    action_scale: float | tuple[float, ...] | None = None
    damping_scale: float | None = None
    gravity_convention: str | None = None
    hard_goal_fraction: float | None = None
    delay_steps: int | None = None
    braking: Braking | None = None
    has_rate_limit: bool | None = None
    observation_noise: float | None = None
    velocity_source: VelocitySource | None = None
    disturbances: float | None = None


FirstEpisodes = Literal["noise", "policy"]


@dataclass(frozen=True)
class Exploration:
    """Ornstein-Uhlenbeck noise on the action, x <- ρ·x + sqrt(1 - ρ²)·σ·N(0, 1) per control step.

    Attributes:
        random_deviation: σ of the first, random episodes.
        policy_deviation: σ while the policy acts, falling linearly to zero over the run.
        correlation: ρ.
        first: who acts in the first episodes: "noise" alone, or the untrained "policy" without noise, as in the paper.
    """

    random_deviation: float = 0.4
    policy_deviation: float = 0.2
    correlation: float = 0.9
    first: FirstEpisodes = "noise"

    def __post_init__(self) -> None:
        if self.first not in get_args(FirstEpisodes):
            raise ConfigError(f"first '{self.first}' is unknown; choose one of: {', '.join(get_args(FirstEpisodes))}.")


ErrorMeasure = Literal["squared", "absolute"]
Targets = Literal["normalised", "raw"]


@dataclass(frozen=True)
class ModelUpdates:
    """How the forward model learns from the replay memory.

    Attributes:
        first: updates on the random episodes, before the policy acts.
        per_iteration: updates per iteration.
        batch: windows per update.
        warm_up: steps that only set the neurons' state.
        unroll: steps that count.
        targets: the changes that are learned: "normalised", divided by their standard deviation in the first episodes,
            or "raw", in units of the observation.
        error: of these changes, "squared" or "absolute". Few steps, in which a joint meets its limit or links
            touch, change the velocities by far more than the model can foresee; with the squared error they outweigh
            all others.
        learning_rate: Adam, before the schedule.
        weight_decay: λ of AdamW (Loshchilov, Hutter 2019): per update, weights shrink by the learning rate times λ. Not
            biases, gains or time constants.
        activity: bounds on the model's firing.
    """

    first: int = 800
    per_iteration: int = 120
    batch: int = 32
    warm_up: int = 5
    unroll: int = 10
    targets: Targets = "normalised"
    error: ErrorMeasure = "squared"
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    activity: ActivityRegulariser = field(default_factory=ActivityRegulariser)

    def __post_init__(self) -> None:
        for name, kinds in (("error", ErrorMeasure), ("targets", Targets)):
            if getattr(self, name) not in get_args(kinds):
                known = ", ".join(get_args(kinds))
                raise ConfigError(f"{name} '{getattr(self, name)}' is unknown; choose one of: {known}.")


@dataclass(frozen=True)
class GoalMix:
    """Where the goals of imagined roll-outs come from: the remaining fraction lies near the hand.

    Attributes:
        hard: fraction of hard goals among those of collected episodes and fresh ones (`tasks.goals`); the evaluation
            uses the task's own fraction.
        recorded: fraction of roll-outs with the goal of the recorded episode.
        reachable: fraction with a fresh reachable goal.
        near_deviation: standard deviation of a near goal from the hand, m, scaled by 2u with u uniform in [0, 1].
    """

    hard: float = 0.25
    recorded: float = 0.5
    reachable: float = 0.3
    near_deviation: float = 0.08


@dataclass(frozen=True)
class PolicyLoss:
    """Weights of the policy's loss, summed over the imagined roll-out's steps and divided by their number.

    Attributes:
        distance: on the distance to the goal, beside its square, whose weight is 1.
        action: on the squared action.
        smoothness_start, smoothness_end: on the squared change of the action; rises geometrically over the run. Both 0
            switch it off.
        guidance: on the joint-space distance to the nearest posture that reaches the goal (`tasks.postures`), squared
            when it is short and linear beyond 1 rad, while the hand is far from the goal: leads out of traps at joint
            limits, which block the hand's straight path.
        guidance_zone: "far" is 1 - exp(-(distance / guidance_zone)²), m.
        precision: on log(1 + (distance / precision_scale)²), which is steepest in the last millimetres.
        precision_scale: m.
        rest: on the joint speed (scaled by the limits, Euclidean norm over joints) while the hand is near the goal.
        rest_zone: "near" is exp(-(distance / rest_zone)²), m.
        self_motion: on the speed of joint motion that does not move the hand (Euclidean norm, rad/s), while the hand is
            near the goal: nothing else keeps a redundant arm from drifting there.
        self_motion_zone: as rest_zone, m.
        limit_soft, limit_near, velocity: on leaving the soft bounds, coming within 5 % of them, on speed above 90 %.
        saturation: on readouts beyond ±3.
    """

    distance: float = 1.0
    action: float = 3e-3
    smoothness_start: float = 0.3
    smoothness_end: float = 3.0
    guidance: float = 0.0
    guidance_zone: float = 0.1
    precision: float = 0.0
    precision_scale: float = 0.01
    rest: float = 0.0
    rest_zone: float = 0.02
    self_motion: float = 0.0
    self_motion_zone: float = 0.03
    limit_soft: float = 0.1
    limit_near: float = 1.0
    velocity: float = 0.1
    saturation: float = 1e-3

    def __post_init__(self) -> None:
        start, end = self.smoothness_start, self.smoothness_end
        if min(start, end) < 0.0 or (start == 0.0) != (end == 0.0):
            raise ConfigError(
                f"smoothness_start = {start} and smoothness_end = {end} must both be above 0, or both be 0."
            )

    def smoothness(self, progress: float) -> float:
        """The weight of the squared change of the action at this point of the run, `progress` in [0, 1]."""
        if self.smoothness_start == 0.0:
            return 0.0
        return float(self.smoothness_start * (self.smoothness_end / self.smoothness_start) ** progress)


@dataclass(frozen=True)
class PolicyUpdates:
    """How the policy learns by back-propagation through the forward model's imagined roll-outs.

    Attributes:
        per_iteration: updates per iteration.
        batch: roll-outs per update.
        warm_up: recorded steps that set the state of both networks, without gradient.
        unroll: imagined steps.
        learning_rate: Adam, before the schedule.
        weight_decay: as in `ModelUpdates`.
        goals: where the goals come from.
        loss: weights.
        activity: bounds on the policy's firing.
    """

    per_iteration: int = 50
    batch: int = 32
    warm_up: int = 5
    unroll: int = 30
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    goals: GoalMix = field(default_factory=GoalMix)
    loss: PolicyLoss = field(default_factory=PolicyLoss)
    activity: ActivityRegulariser = field(default_factory=ActivityRegulariser)


Action = Literal["warn", "stop", "adapt"]


@dataclass(frozen=True)
class Diagnosis:
    """Which symptoms of a run are treated as faults, and how: `warn` only reports, `stop` saves and ends the run,
    `adapt` changes something and goes on (docs/method.md, "Diagnosis").

    Attributes:
        patience: iterations in a row in which a bound must be broken before anything is done; for NaN always one.
        silent_share: share of a layer's neurons that may stay silent throughout an iteration; 1 allows all.
        saturated_activity: spikes per tick above which a neuron counts as saturated.
        saturated_share: share of a layer's neurons that may be saturated; 1 allows all.
        gradient_factor: how many times `gradient_norm` the median gradient norm before clipping may reach.
        model_error_ratio: from this squared error of the forward model on, relative to that of predicting no motion,
            the model counts as worse than nothing. Below 1, since a dead readout predicts exactly no motion.
        model_grace: first iterations, in which the forward model may be worse.
        most_halvings: of a network's learning rates; then the run stops.
        not_finite, silent_layer, saturated_layer, exploding_gradient, model_worse_than_nothing: what is done.
    """

    patience: int = 3
    silent_share: float = 0.9
    saturated_activity: float = 0.95
    saturated_share: float = 0.5
    gradient_factor: float = 100.0
    model_error_ratio: float = 0.99
    model_grace: int = 5
    most_halvings: int = 6
    not_finite: Action = "adapt"
    silent_layer: Action = "warn"
    saturated_layer: Action = "warn"
    exploding_gradient: Action = "warn"
    model_worse_than_nothing: Action = "adapt"

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError(f"diagnosis: patience = {self.patience} must be at least 1.")
        for name in ("silent_share", "saturated_activity", "saturated_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"diagnosis: {name} = {getattr(self, name)} must lie in (0, 1].")
        for name in ("gradient_factor", "model_error_ratio"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"diagnosis: {name} = {getattr(self, name)} must be above 0.")


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Attributes:
        task: name of the task, or path of an arm's file, whose hand is brought to goals.
        seed: of everything random in the run.
        iterations: collect-and-learn cycles; the schedules below are stretched over them.
        random_episodes: episodes of noise before the first update.
        episodes_per_iteration: episodes with the policy per iteration.
        replay_episodes: capacity of the replay memory.
        constant_share: share of the run with the full learning rates; then a cosine falls to `final_rate`.
        final_rate: last learning rate as a share of the full one.
        time_constant_learning_rate: Adam, for the logarithms of the time constants.
        gradient_norm: gradients are clipped to this norm.
        evaluate_every: iterations between evaluations (each writes a checkpoint).
        evaluation_episodes: episodes per evaluation during training.
        predicts: what the forward model predicts: "velocities", "angles", or "everything" as in the paper.
        features: what the networks see.
        task_options: changes to the task.
        exploration, forward_model, policy, model_updates, policy_updates, diagnosis: see their classes.
    """

    task: str
    seed: int = 1
    iterations: int = 220
    random_episodes: int = 64
    episodes_per_iteration: int = 24
    replay_episodes: int = 1000
    constant_share: float = 0.3
    final_rate: float = 0.03
    time_constant_learning_rate: float = 1e-2
    gradient_norm: float = 1.0
    evaluate_every: int = 10
    evaluation_episodes: int = 200
    predicts: Predicts = "velocities"
    features: Features = field(default_factory=Features)
    task_options: TaskOptions = field(default_factory=TaskOptions)
    exploration: Exploration = field(default_factory=Exploration)
    forward_model: AnyNetworkConfig = field(default_factory=NetworkConfig)
    policy: AnyNetworkConfig = field(default_factory=NetworkConfig)
    model_updates: ModelUpdates = field(default_factory=ModelUpdates)
    policy_updates: PolicyUpdates = field(default_factory=PolicyUpdates)
    diagnosis: Diagnosis = field(default_factory=Diagnosis)

    def __post_init__(self) -> None:
        for name in (
            "iterations",
            "random_episodes",
            "episodes_per_iteration",
            "replay_episodes",
            "evaluate_every",
            "evaluation_episodes",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1.")
        if self.replay_episodes < self.random_episodes:
            raise ConfigError(
                f"replay_episodes = {self.replay_episodes} must hold the random_episodes = {self.random_episodes}."
            )
        for name in ("model_updates", "policy_updates"):
            decay = getattr(self, name).weight_decay
            if not 0.0 <= decay < math.inf:
                raise ConfigError(f"{name}: weight_decay = {decay} must be a finite number of at least 0.")
        if self.predicts == "velocities" and not self.features.velocity:
            raise ConfigError(
                "features: velocity = false hides the joint velocities, so that predicts = 'velocities' cannot work; "
                "set predicts to angles or everything."
            )
        period = self.reach_task.control_period
        for name in ("forward_model", "policy"):
            network: AnyNetworkConfig = getattr(self, name)
            if abs(network.ticks * network.tick - period) > 1e-9:
                raise ConfigError(
                    f"{name}: ticks × tick = {network.ticks} × {network.tick} s must equal the control period of "
                    f"{period} s."
                )

    @property
    def reach_task(self) -> ReachTask:
        """The task with this run's changes.

        Raises:
            ConfigError: there is no task of that name.
        """
        changes = {name: value for name, value in vars(self.task_options).items() if value is not None}
        return replace(get_task(self.task), **changes)


def _network_config(values: Any) -> Any:
    """The configuration of a network of the architecture that its plain data names; "spiking" if they name none.

    Keys of spiking networks that mean nothing to a baseline are dropped: it usually says only where it differs from
    the configuration of a spiking network.

    Raises:
        ConfigError: there is no such architecture.
    """
    if not isinstance(values, dict):
        return values
    architecture = values.get("architecture", "spiking")
    kind = ARCHITECTURES.get(architecture) if isinstance(architecture, str) else None
    if kind is None:
        raise ConfigError(f"architecture '{architecture}' is unknown; choose one of: {', '.join(ARCHITECTURES)}.")
    dropped = {key.name for key in fields(NetworkConfig)} - {key.name for key in fields(kind)} | {"architecture"}
    return dacite.from_dict(kind, {key: value for key, value in values.items() if key not in dropped}, _READING)


_READING: Final = dacite.Config(
    strict=True,
    cast=[tuple, float],
    type_hooks={AnyNetworkConfig: _network_config},  # type: ignore[dict-item]  # unions are looked up as types are
)

Parsed = TypeVar("Parsed")


def from_plain(kind: type[Parsed], values: dict[str, Any], source: str, known: str) -> Parsed:
    """Build a dataclass from plain data, as read from YAML.

    Args:
        kind: the dataclass.
        values: nested mapping of its fields.
        source: where the data came from, for messages.
        known: where its keys are explained, for messages.
    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range; names the source and the key.
    """
    try:
        return dacite.from_dict(kind, values, _READING)
    except dacite.UnexpectedDataError as error:
        keys = ", ".join(f"'{key}'" for key in sorted(error.keys))
        raise ConfigError(f"{source}: unknown configuration key {keys}; the known keys stand in {known}.") from None
    except dacite.DaciteError as error:
        raise ConfigError(f"{source}: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def config_from_dict(values: dict[str, Any], source: str) -> TrainingConfig:
    """Build a configuration from plain data, as read from YAML or from a checkpoint.

    Args:
        values: nested mapping of the fields of `TrainingConfig`.
        source: where it came from, for messages.
    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range; names the source and the key.
    """
    known = "spiking_controller/networks/config.py and in config/train/*.yaml"
    return from_plain(TrainingConfig, values, source, known)


def config_to_dict(config: TrainingConfig) -> dict[str, Any]:
    """A configuration as plain data, as in YAML and in checkpoints: the inverse of `config_from_dict`."""
    networks = {name: _network_to_dict(getattr(config, name)) for name in ("forward_model", "policy")}
    plain: dict[str, Any] = json.loads(json.dumps({**asdict(config), **networks}))
    return plain


def _network_to_dict(config: AnyNetworkConfig) -> dict[str, Any]:
    """The inverse of `_network_config`; without unset values, so that a version without their keys can read it."""
    values = {name: value for name, value in asdict(config).items() if value is not None}
    return {"architecture": architecture_of(config), **values}


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a configuration file.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold a mapping of configuration keys, found {type(values).__name__}.")
    return values


def load_config(path: Path, arm_file: str | None = None) -> TrainingConfig:
    """Read a configuration file.

    With the key `base` a file says only where it differs from another one, which it names relative to its own folder:
    mappings are merged key by key, everything else is replaced. An arm's file as `task` is relative to the file's
    folder, too.

    Args:
        path: the file.
        arm_file: file of an arm that the recipe is used for, in place of its own task.
    Raises:
        ConfigError: the file or its base is missing, is not YAML, or holds an unknown key or a wrong value.
        RobotModelError: the arm's file is wrong.
    """
    values = read_config(path)
    task = values.get("task")
    if arm_file is not None:
        values["task"] = arm_file
    elif isinstance(task, str) and is_arm_file(task):
        values["task"] = str((path.parent / task).resolve())
    return config_from_dict(values, str(path))


def read_config(path: Path, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a configuration file says, on top of what its base says (see `load_config`).

    Args:
        path: the file.
        derived: the files that led here.
    Raises:
        ConfigError: as `load_config`, but keys and values are not looked at.
    """
    values = read_mapping(path)
    if "base" not in values:
        return values
    name = values.pop("base")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: base is {name!r}; give the name of another configuration file.")
    base = (path.parent / name).resolve()
    chain = (*derived, path.resolve())
    if base in chain:
        raise ConfigError(f"{path}: base '{name}' leads back to itself; let it name a file that does not build on it.")
    if not base.is_file():
        raise ConfigError(f"{path}: base '{name}' is not there; give a file name relative to {path.parent}.")
    return merged(read_config(base, chain), values)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`below` with what `above` says instead; mappings are merged key by key."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
