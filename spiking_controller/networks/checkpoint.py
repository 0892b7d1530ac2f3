"""Checkpoints: the weights of both networks plus the contract that says which robot and setting they are for.

A checkpoint is one safetensors file (never pickle). Its header holds JSON: the contract, the training configuration,
evaluation figures, the parent's hash and the file's own hash. Files are written atomically.
"""

import hashlib
import json
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from spiking_controller.errors import ConfigError, ModelContractError, RobotModelError
from spiking_controller.files import write_atomically
from spiking_controller.networks.config import TrainingConfig, config_from_dict, config_to_dict
from spiking_controller.networks.features import architecture_of
from spiking_controller.networks.forward_model import ForwardModel
from spiking_controller.networks.policy import Policy
from spiking_controller.robots.arm import Arm, is_arm_file
from spiking_controller.robots.arm_identity import arm_hash
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask

FORMAT_VERSION = 1
_HEADER_KEY = "spiking_controller"


@dataclass(frozen=True)
class Contract:
    """What a checkpoint was trained for. Lists are per joint in the order of `joint_names`; SI units.

    Attributes:
        format_version: of the checkpoint file.
        task, arm: names.
        joint_names: all torque-driven joints; the first `controlled_joints` are driven by the network.
        observation: layout and scaling of the observation, block by block.
        action_scale: share of the torque limit that the full action commands; of all controlled joints, or of each.
        damping: of the torque law, N·m·s/rad, per controlled joint.
        control_period: s.
        ticks_per_step, tick_length: of the spiking networks, - and s.
        gravity_convention: "compensated" or "raw".
        position_lower, position_upper: rad. velocity_limit: rad/s. torque_limit: N·m. torque_rate_limit: N·m/s.
        soft_limit_fraction: share of the position range in which the arm was trained.
        network: what is predicted, sizes of both networks, and their architectures where one is not spiking.
        base_frame, hand: root link, and site or link that is brought to goals.
        home: posture of the locked joints in training, and where the arm waits, rad.
        arm_hash: of all that decides how the arm moves, see `robots.arm_identity.arm_hash`.

    Checkpoints of earlier versions lack the last four; they are None then.
    """

    format_version: int
    task: str
    arm: str
    joint_names: list[str]
    controlled_joints: int
    observation: list[dict[str, Any]]
    action_scale: float | list[float]
    damping: list[float]
    control_period: float
    ticks_per_step: int
    tick_length: float
    gravity_convention: str
    position_lower: list[float]
    position_upper: list[float]
    velocity_limit: list[float]
    torque_limit: list[float]
    torque_rate_limit: list[float]
    soft_limit_fraction: float
    network: dict[str, Any]
    base_frame: str | None = None
    hand: str | None = None
    home: list[float] | None = None
    arm_hash: str | None = None

    @classmethod
    def of(cls, config: TrainingConfig) -> "Contract":
        """The contract of networks trained with that configuration."""
        task = config.reach_task
        arm, scale = task.arm, task.action_scale

        def plain(values: np.ndarray) -> list[float]:
            return [float(value) for value in np.asarray(values).reshape(-1)]

        return cls(
            format_version=FORMAT_VERSION,
            task=task.name,
            arm=arm.name,
            joint_names=list(arm.joint_names),
            controlled_joints=arm.controlled_joints,
            observation=[dict(block) for block in ObservationCodec(task).layout],
            action_scale=list(scale) if isinstance(scale, tuple) else float(scale),
            damping=plain(task.damping),
            control_period=float(task.control_period),
            ticks_per_step=config.policy.ticks,
            tick_length=config.policy.tick,
            gravity_convention=task.gravity_convention,
            position_lower=plain(arm.limits.position_lower),
            position_upper=plain(arm.limits.position_upper),
            velocity_limit=plain(arm.limits.velocity),
            torque_limit=plain(arm.limits.torque),
            torque_rate_limit=plain(np.broadcast_to(arm.limits.torque_rate, (len(arm.joint_names),))),
            soft_limit_fraction=float(task.soft_limit_fraction),
            network={
                "predicts": config.predicts,
                "forward_model": list(config.forward_model.hidden),
                "policy": list(config.policy.hidden),
                **_architectures(config),
            },
            base_frame=arm.base_frame,
            hand=arm.hand_site,
            home=plain(arm.home),
            arm_hash=arm_hash(arm),
        )


def _architectures(config: TrainingConfig) -> dict[str, dict[str, str]]:
    """The contract's entry for networks of which one is not spiking; the contract of spiking networks has none."""
    architectures = {name: architecture_of(getattr(config, name)) for name in ("forward_model", "policy")}
    return {} if set(architectures.values()) == {"spiking"} else {"architecture": architectures}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        policy, forward_model: the networks, in evaluation mode.
        contract: what they were trained for.
        config: the training configuration.
        metadata: the whole header: also "evaluation" (figures), "parent" (hash or None) and "sha256".
        source: file name, for messages.
    """

    policy: Policy
    forward_model: ForwardModel
    contract: Contract
    config: TrainingConfig
    metadata: dict[str, Any]
    source: str

    @property
    def task(self) -> ReachTask:
        """The task as trained."""
        return self.config.reach_task


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the header without its own hash and over every tensor's name and bytes, in order of name."""
    digest = hashlib.sha256(json.dumps({k: v for k, v in header.items() if k != "sha256"}, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def dump_checkpoint(
    policy: Policy,
    forward_model: ForwardModel,
    config: TrainingConfig,
    *,
    evaluation: Mapping[str, Any] | None = None,
    parent: str | None = None,
) -> bytes:
    """The bytes of a checkpoint file.

    Args:
        policy, forward_model: the networks, built from `config`.
        config: the training configuration.
        evaluation: figures measured on these weights.
        parent: sha256 of the checkpoint that these weights were trained on from.
    """
    tensors = {
        f"{prefix}.{name}": tensor.detach().contiguous()
        for prefix, network in (("policy", policy), ("forward_model", forward_model))
        for name, tensor in network.state_dict().items()
    }
    header: dict[str, Any] = {
        "contract": asdict(Contract.of(config)),
        "training": config_to_dict(config),
        "evaluation": dict(evaluation or {}),
        "parent": parent,
    }
    header = json.loads(json.dumps(header))
    header["sha256"] = _digest(header, tensors)
    return serialise(tensors, metadata={_HEADER_KEY: json.dumps(header, sort_keys=True)})


def save_checkpoint(
    path: Path,
    policy: Policy,
    forward_model: ForwardModel,
    config: TrainingConfig,
    *,
    evaluation: Mapping[str, Any] | None = None,
    parent: str | None = None,
) -> None:
    """Write a checkpoint file atomically; arguments as `dump_checkpoint`."""
    write_atomically(path, dump_checkpoint(policy, forward_model, config, evaluation=evaluation, parent=parent))


_LATER_FIELDS: Final = tuple(field.name for field in fields(Contract) if field.default is None)
"""Which checkpoints of earlier versions lack."""


def _difference(found: Contract, expected: Contract) -> tuple[str, Any, Any] | None:
    """The first field in which two contracts differ (numbers up to 1e-6), with both values."""

    def same(left: Any, right: Any) -> bool:
        if isinstance(left, int | float) and isinstance(right, int | float):
            return bool(np.isclose(left, right, rtol=1e-6, atol=1e-9))
        if isinstance(left, list) and isinstance(right, list):
            return len(left) == len(right) and all(map(same, left, right))
        if isinstance(left, dict) and isinstance(right, dict):
            return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
        return bool(left == right)

    for field in fields(Contract):
        values = getattr(found, field.name), getattr(expected, field.name)
        if field.name in _LATER_FIELDS and None in values:
            continue
        if not same(*values):
            return field.name, *values
    return None


def check_same_contract(found: Contract, running: Contract, source: str) -> None:
    """Refuse networks that were made for something else than those that run.

    Raises:
        ModelContractError: names the first field that differs.
    """
    if difference := _difference(found, running):
        field, was, now = difference
        raise ModelContractError(
            f"{source}: {field} is {was!r}, but the running networks have {now!r}; send networks that were trained on "
            "from the running ones."
        )


def _read_contract(values: Any, source: str) -> Contract:
    if not isinstance(values, dict):
        raise ModelContractError(f"{source}: the header holds no contract; train or download the checkpoint again.")
    known = {field.name for field in fields(Contract)}
    if missing := sorted(known - values.keys() - set(_LATER_FIELDS)):
        raise ModelContractError(
            f"{source}: the contract lacks the field '{missing[0]}'; train or download the checkpoint again."
        )
    if values["format_version"] != FORMAT_VERSION:
        raise ModelContractError(
            f"{source}: format_version is {values['format_version']!r}, this version of spiking_controller reads "
            f"{FORMAT_VERSION}; train the checkpoint again or install the version that wrote it."
        )
    if unknown := sorted(values.keys() - known):
        raise ModelContractError(
            f"{source}: the contract has the unknown field '{unknown[0]}'; install the version that wrote it."
        )
    return Contract(**values)


def parse_checkpoint(data: bytes, source: str, arm: str | None = None) -> Checkpoint:
    """Read a checkpoint from the bytes of its file and check it: format, hash, contract, shapes, finite weights.

    Args:
        data: a whole safetensors file.
        source: file name or topic, for messages.
        arm: file of the arm, for networks that were trained with one; by default where it was in training.
    Raises:
        ModelContractError: names the source, the field, what was found and what was expected.
    """
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        return _load(Path(file.name), source, arm)


def load_checkpoint(path: Path | str, arm: str | None = None) -> Checkpoint:
    """Read and check a checkpoint file, see `parse_checkpoint`.

    An arm's file that is no longer where it was in training is looked for beside the checkpoint, too.

    Raises:
        ModelContractError: the file is missing, foreign or damaged, or does not fit the robot it names.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelContractError(
            f"{path}: there is no such checkpoint; give the path of a .safetensors file made by "
            "`spiking_controller train`."
        )
    return _load(path, str(path), arm)


def load_checkpoint_of(arm: Arm, path: Path | str = "") -> Checkpoint:
    """Read and check a checkpoint for an arm.

    Args:
        arm: which one.
        path: of the file; empty: the one that the arm's file names.
    Raises:
        ModelContractError: as `load_checkpoint`, or it was made for another arm, or there is none.
    """
    if not path and arm.checkpoint is None:
        raise ModelContractError(f"the arm '{arm.name}' names no checkpoint; give one, or add the key to {arm.source}.")
    checkpoint = load_checkpoint(path or str(arm.checkpoint), arm.source)
    if checkpoint.task.arm.name != arm.name:
        raise ModelContractError(
            f"{checkpoint.source}: arm is '{checkpoint.task.arm.name}', but the parameter arm is '{arm.name}'; "
            "give a checkpoint of this arm, or set arm."
        )
    return checkpoint


def _arm_file(trained: str, path: Path, source: str, arm: str | None) -> str:
    """Where the arm's file lies that networks were trained with."""
    if arm is not None and is_arm_file(arm):
        return str(Path(arm).resolve())
    places = [Path(trained), path.with_name(Path(trained).name)]
    for place in places:
        if place.is_file():
            return str(place.resolve())
    raise ModelContractError(
        f"{source}: was trained for the arm of {trained}, which is not there; put that file beside the checkpoint, or "
        "give its path as the arm."
    )


def _load(path: Path, source: str, arm: str | None) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, struct.error) as error:
        raise ModelContractError(
            f"{source}: is not a complete safetensors file ({' '.join(str(error).split())}); give a checkpoint made "
            "by `spiking_controller train`."
        ) from None
    if _HEADER_KEY not in metadata:
        raise ModelContractError(
            f"{source}: is a safetensors file of something else (no '{_HEADER_KEY}' header); give a checkpoint made "
            "by `spiking_controller train`."
        )
    try:
        header: dict[str, Any] = json.loads(metadata[_HEADER_KEY])
    except json.JSONDecodeError as error:
        raise ModelContractError(f"{source}: the header is not JSON ({error}); get the file again.") from None
    contract = _read_contract(header.get("contract"), source)
    found, expected = header.get("sha256"), _digest(header, tensors)
    if found != expected:
        raise ModelContractError(
            f"{source}: sha256 is {found}, but the content gives {expected}; the file was damaged or edited, get it "
            "again."
        )
    try:
        training = header["training"]
        if is_arm_file(str(training["task"])):
            training = training | {"task": _arm_file(training["task"], path, source, arm)}
        config = config_from_dict(training, source)
    except (ConfigError, RobotModelError, KeyError, TypeError) as error:
        raise ModelContractError(f"{source}: the training configuration in the header is unusable: {error}") from None
    if difference := _difference(contract, Contract.of(config)):
        field, was, now = difference
        if field == "arm_hash":
            raise ModelContractError(
                f"{source}: the networks were trained on another {contract.arm}: its frames, masses, friction or "
                "shapes have changed since; give back the description of then, or train on the present one."
            )
        raise ModelContractError(
            f"{source}: {field} is {was!r}, but this installation's {contract.arm} has {now!r}; use a checkpoint "
            "trained for this robot and version."
        )
    policy, forward_model = build_networks(config)
    for prefix, network in (("policy", policy), ("forward_model", forward_model)):
        own = {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
        wanted = network.state_dict()
        for name in sorted(wanted.keys() | own.keys()):
            if name not in own or name not in wanted or own[name].shape != wanted[name].shape:
                shape = tuple(own[name].shape) if name in own else "nothing"
                needed = tuple(wanted[name].shape) if name in wanted else "nothing"
                raise ModelContractError(
                    f"{source}: weight '{prefix}.{name}' has shape {shape}, the network sizes in the header need "
                    f"{needed}; get the file again."
                )
            if not own[name].isfinite().all():
                raise ModelContractError(
                    f"{source}: weight '{prefix}.{name}' holds NaN or infinity; go back to an earlier checkpoint."
                )
        network.load_state_dict(own)
        network.eval()
    return Checkpoint(policy, forward_model, contract, config, header, source)


def build_networks(config: TrainingConfig) -> tuple[Policy, ForwardModel]:
    """Both networks of a run, freshly initialised from its seed."""
    task = config.reach_task
    return (
        Policy(task, config.policy, config.seed, features=config.features),
        ForwardModel(task, config.forward_model, config.predicts, config.seed + 1, features=config.features),
    )
