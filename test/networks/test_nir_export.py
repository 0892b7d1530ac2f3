"""Whoever steps the NIR graph as its dialect says gets every spike of the package, and the action from the sidecar."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import nir
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rockpool.nn.modules.torch.lif_torch import LIFTorch, StepPWL

from spiking_controller.cli import main
from spiking_controller.errors import ConfigError
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import (
    Checkpoint,
    build_networks,
    dump_checkpoint,
    load_checkpoint,
    parse_checkpoint,
)
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.nir_export import Dialect, to_nir
from spiking_controller.resources import share_path
from spiking_controller.snn.config import NetworkConfig
from spiking_controller.tasks.environment import ReachVectorEnv

EPISODES = 10


class Recorded(NamedTuple):
    """Ten closed-loop episodes: features [ticks, episodes, features], spikes of both layers, last actions and s."""

    features: NDArray[np.float64]
    spikes: list[NDArray[np.float64]]
    action: NDArray[np.float64]
    size: NDArray[np.float64]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(share_path("models", "planar_reach.safetensors"))


@pytest.fixture(scope="module")
def recorded(checkpoint: Checkpoint) -> Recorded:
    env = ReachVectorEnv(checkpoint.task, EPISODES)
    seen, _ = env.reset(seed=3)
    policy, agent = checkpoint.policy, SpikingAgent(checkpoint.policy)
    agent.reset(EPISODES)
    previous = torch.zeros(EPISODES, checkpoint.task.controlled_joints)
    features: list[Any] = []
    spikes: list[list[Any]] = [[], []]
    for _ in range(checkpoint.task.steps_per_episode):
        observation, goal = (torch.from_numpy(seen[name]) for name in ("observation", "goal"))
        with torch.inference_mode():
            inputs = policy.inputs(observation, previous, goal)
        features += [inputs.numpy()] * policy.network.config.ticks
        action = agent.act(seen["observation"], seen["goal"])
        for layer in (0, 1):
            spikes[layer] += list(agent._spikes[f"policy/hidden{layer + 1}"].numpy())
        previous = torch.from_numpy(action.astype(np.float32))
        seen, *_ = env.step(action)
    assert policy.normalisation is not None
    size = policy.normalisation.size(inputs).numpy()
    return Recorded(np.array(features, dtype=np.float64), [np.array(one) for one in spikes], action, size)


def stepped(lif: nir.CubaLIF, drive: NDArray[np.float64], dt: float, dialect: Dialect) -> NDArray[np.float64]:
    """Spikes of CubaLIF with subtractive reset for the drive [ticks, batch, neurons], float64."""
    if dialect == "rockpool":
        return rockpool(lif, drive, dt)
    is_euler = dialect == "euler"
    mix = dt / lif.tau_mem if is_euler else 1.0 - np.exp(-dt / lif.tau_mem)
    keep = 1.0 - dt / lif.tau_syn if is_euler else np.exp(-dt / lif.tau_syn)
    syn, mem, spikes = np.zeros(drive.shape[1:]), np.zeros(drive.shape[1:]), []
    for now in drive:
        syn = syn + now if is_euler else keep * syn + now
        mem = mem + mix * (lif.r * syn + lif.v_leak - mem)
        spikes.append((mem > lif.v_threshold).astype(np.float64))
        mem = mem - lif.v_threshold * spikes[-1]
        if is_euler:
            syn = keep * syn
    return np.array(spikes)


class _DoubleSpikes:
    """Rockpool's spikes are float32 whatever the state is; its float64 state must not meet those."""

    @staticmethod
    def apply(*arguments: Any) -> torch.Tensor:
        spikes: torch.Tensor = StepPWL.apply(*arguments)
        return spikes.double()


def rockpool(lif: nir.CubaLIF, drive: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
    """The same in Rockpool, one spike per tick at most."""
    neurons = lif.tau_mem.size
    module = LIFTorch(
        (neurons, neurons),
        tau_mem=torch.tensor(lif.tau_mem),
        tau_syn=torch.tensor(lif.tau_syn)[:, None],
        bias=torch.zeros(neurons, dtype=torch.float64),
        threshold=torch.tensor(lif.v_threshold),
        spike_generation_fn=_DoubleSpikes,
        max_spikes_per_dt=1,
        dt=dt,
    ).double()
    with torch.no_grad():
        spikes, _, _ = module(torch.tensor(drive.swapaxes(0, 1)))
    return np.asarray(spikes.numpy().swapaxes(0, 1), dtype=np.float64)


@pytest.mark.parametrize("dialect", ["exact", "euler", "rockpool"])
def test_no_spike_differs_over_800_ticks_of_ten_episodes(
    checkpoint: Checkpoint, recorded: Recorded, dialect: Dialect
) -> None:
    graph, sidecar = to_nir(checkpoint, dialect)
    assert len(recorded.features) == 800
    signal = recorded.features
    for layer in (0, 1):
        weights, lif = graph.nodes[f"weights_{layer + 1}"], graph.nodes[f"layer_{layer + 1}"]
        signal = stepped(lif, signal @ weights.weight.T + weights.bias, sidecar["dt"], dialect)
        assert recorded.spikes[layer].sum() > 5_000
        assert int((signal != recorded.spikes[layer]).sum()) == 0


def test_the_action_follows_from_the_spikes_and_the_sidecar(checkpoint: Checkpoint, recorded: Recorded) -> None:
    readout = json.loads(json.dumps(to_nir(checkpoint, "exact").sidecar))["readout"]
    keep_synaptic, keep_membrane = np.array(readout["keep_synaptic"]), np.array(readout["keep_membrane"])
    currents = sum(
        spikes @ np.array(weights).T for spikes, weights in zip(recorded.spikes, readout["weights"], strict=True)
    )
    syn = mem = np.zeros_like(recorded.action)
    for current in currents:
        syn = keep_synaptic * syn + current
        mem = keep_membrane * mem + (1.0 - keep_membrane) * syn
    action = np.tanh(recorded.size * np.array(readout["gain"]) * mem)
    np.testing.assert_allclose(action, recorded.action, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"neuron": "adaptive_lif"}, "neurons adapt, and NIR has no neuron whose threshold moves"),
        ({"recurrence": "step"}, "feeds spikes back by step"),
    ],
)
def test_what_nir_cannot_say_is_refused_with_the_reason(changed: dict[str, Any], reason: str) -> None:
    policy = NetworkConfig(**{"hidden": (8,), "neuron": "lif", "recurrence": "none", **changed})
    config = TrainingConfig(task="planar_reach", policy=policy, forward_model=NetworkConfig(hidden=(8,)))
    checkpoint = parse_checkpoint(dump_checkpoint(*build_networks(config), config), "mine.safetensors")
    with pytest.raises(ConfigError, match=f"mine.safetensors: .*{reason}"):
        to_nir(checkpoint, "exact")


def test_the_command_writes_a_graph_that_nir_reads_and_a_sidecar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, file = share_path("models", "panda_reach.safetensors"), tmp_path / "panda.nir"
    assert main(["export", str(source), "--nir", str(file), "--dialect", "euler"]) == 0
    assert "panda.nir.json" in capsys.readouterr().out
    graph, sidecar = nir.read(file), json.loads((tmp_path / "panda.nir.json").read_text())
    assert graph.nodes["layer_2"].tau_mem.size == 256
    assert graph.nodes["weights_1"].weight.shape[1] == sum(block["size"] for block in sidecar["features"]["blocks"])
    assert sidecar["dialect"] == "euler"
    assert main(["export", str(source)]) == 2
    assert "give --onnx FILE, --nir FILE, or both" in capsys.readouterr().err
