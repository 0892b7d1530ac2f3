"""Checkpoints: what goes in comes out, and whatever does not fit is refused with the field and the mend."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from spiking_controller.errors import ModelContractError
from spiking_controller.networks.checkpoint import (
    Contract,
    _digest,
    build_networks,
    load_checkpoint,
    parse_checkpoint,
    save_checkpoint,
)
from spiking_controller.networks.config import TrainingConfig


@pytest.fixture
def checkpoint_file(small_config: TrainingConfig, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, *build_networks(small_config), small_config, evaluation={"final_error_m_median": 0.5})
    return path


def rewrite(path: Path, change: Any, *, rehash: bool = True) -> None:
    """Apply `change(header, tensors)` to a checkpoint file, with a correct hash unless told otherwise."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["spiking_controller"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    if rehash:
        header["sha256"] = _digest(header, tensors)
    save_file(tensors, path, metadata={"spiking_controller": json.dumps(header)})


def test_a_saved_checkpoint_loads_with_the_same_weights_contract_and_figures(
    small_config: TrainingConfig, checkpoint_file: Path
) -> None:
    loaded = load_checkpoint(checkpoint_file)
    policy, model = build_networks(small_config)
    for name, tensor in policy.state_dict().items():
        assert torch.equal(loaded.policy.state_dict()[name], tensor)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.forward_model.state_dict()[name], tensor)
    assert loaded.contract == Contract.of(small_config)
    assert loaded.config == small_config
    assert loaded.metadata["evaluation"] == {"final_error_m_median": 0.5}
    assert loaded.metadata["parent"] is None


def test_bytes_and_file_are_read_alike(checkpoint_file: Path) -> None:
    parsed = parse_checkpoint(checkpoint_file.read_bytes(), "model_update")
    assert parsed.metadata == load_checkpoint(checkpoint_file).metadata
    assert parsed.source == "model_update"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelContractError, match="there is no such checkpoint"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 4096])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelContractError, match="not a complete safetensors file"):
        load_checkpoint(path)


def test_a_truncated_file_is_refused(checkpoint_file: Path) -> None:
    data = checkpoint_file.read_bytes()
    with pytest.raises(ModelContractError, match="not a complete safetensors file"):
        parse_checkpoint(data[: len(data) // 2], "model_update")


def test_somebody_elses_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ModelContractError, match="something else"):
        load_checkpoint(path)


def test_an_edited_weight_breaks_the_hash(checkpoint_file: Path) -> None:
    def change(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors["policy.network.input_weight"] += 1.0

    rewrite(checkpoint_file, change, rehash=False)
    with pytest.raises(ModelContractError, match="sha256"):
        load_checkpoint(checkpoint_file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(checkpoint_file: Path, value: float) -> None:
    def change(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors["forward_model.network.input_weight"][0, 0] = value

    rewrite(checkpoint_file, change)
    with pytest.raises(ModelContractError, match=r"forward_model\.network\.input_weight' holds NaN or infinity"):
        load_checkpoint(checkpoint_file)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("joint_names", ["joint_a", "joint_b"]),
        ("joint_names", ["planar_joint2", "planar_joint1"]),
        ("control_period", 0.01),
        ("gravity_convention", "raw"),
        ("torque_limit", [20.0, 21.0]),
        ("action_scale", 0.5),
        ("damping", [1.0, 1.0]),
        ("ticks_per_step", 7),
        ("arm", "panda"),
    ],
)
def test_a_contract_that_differs_from_the_robot_is_refused_by_field_found_and_expected(
    checkpoint_file: Path, field: str, value: Any
) -> None:
    expected: Any = None

    def change(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        nonlocal expected
        expected = header["contract"][field]
        header["contract"][field] = value

    rewrite(checkpoint_file, change)
    with pytest.raises(ModelContractError) as error:
        load_checkpoint(checkpoint_file)
    message = str(error.value)
    assert str(checkpoint_file) in message
    assert f"{field} is {value!r}" in message
    assert repr(expected) in message


def test_a_contract_without_a_field_is_refused(checkpoint_file: Path) -> None:
    rewrite(checkpoint_file, lambda header, tensors: header["contract"].pop("damping"))
    with pytest.raises(ModelContractError, match="lacks the field 'damping'"):
        load_checkpoint(checkpoint_file)


def test_another_format_version_is_refused(checkpoint_file: Path) -> None:
    rewrite(checkpoint_file, lambda header, tensors: header["contract"].update(format_version=99))
    with pytest.raises(ModelContractError, match="format_version is 99"):
        load_checkpoint(checkpoint_file)


def test_weights_of_another_size_are_refused(checkpoint_file: Path) -> None:
    def change(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors["policy.network.input_weight"] = torch.zeros(3, 3)

    rewrite(checkpoint_file, change)
    with pytest.raises(ModelContractError, match=r"policy\.network\.input_weight' has shape \(3, 3\)"):
        load_checkpoint(checkpoint_file)


def test_a_failed_write_leaves_the_old_checkpoint(small_config: TrainingConfig, checkpoint_file: Path) -> None:
    before = checkpoint_file.read_bytes()
    networks = build_networks(small_config)
    with pytest.raises(TypeError):
        save_checkpoint(checkpoint_file, *networks, small_config, evaluation={"figure": object()})
    assert checkpoint_file.read_bytes() == before
    assert list(checkpoint_file.parent.iterdir()) == [checkpoint_file]


def test_the_seed_decides_the_initial_weights(small_config: TrainingConfig) -> None:
    first, _ = build_networks(small_config)
    again, _ = build_networks(small_config)
    other, _ = build_networks(replace(small_config, seed=4))
    weights = [policy.state_dict()["network.input_weight"] for policy in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
