"""Whoever steps the NIR graph as its dialect says gets every spike of the package, and the action from the sidecar."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import nir
import numpy as np
import pytest
import snntorch
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
from spiking_controller.snn.config import NetworkConfig, Reset
from spiking_controller.tasks.environment import ReachVectorEnv

EPISODES = 10


class Recorded(NamedTuple):
    """Ten closed-loop episodes: features [ticks, episodes, features], spikes of both layers, last actions and s.

    The features are those that the first layer receives at each tick.
    """

    features: NDArray[np.float64]
    spikes: list[NDArray[np.float64]]
    action: NDArray[np.float64]
    size: NDArray[np.float64]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(share_path("models", "planar_reach.safetensors"))


@pytest.fixture(scope="module")
def on_chip(checkpoint: Checkpoint) -> Checkpoint:
    """The same weights in neurons that a spike sets to zero, with room for a tick of delay between the layers."""
    before = checkpoint.config.policy
    assert isinstance(before, NetworkConfig)
    config = replace(checkpoint.config, policy=replace(before, reset="zero", delay=1))
    networks = build_networks(config)
    for network, trained in zip(networks, (checkpoint.policy, checkpoint.forward_model), strict=True):
        network.load_state_dict(trained.state_dict())
    return parse_checkpoint(dump_checkpoint(*networks, config), "on_chip.safetensors")


@pytest.fixture(scope="module")
def recorded(checkpoint: Checkpoint) -> Recorded:
    return record(checkpoint)


@pytest.fixture(scope="module")
def recorded_on_chip(on_chip: Checkpoint) -> Recorded:
    return record(on_chip)


def record(checkpoint: Checkpoint) -> Recorded:
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
    config = checkpoint.config.policy
    assert isinstance(config, NetworkConfig)
    received = delayed(np.array(features, dtype=np.float64), config.delay)
    return Recorded(received, [np.array(one) for one in spikes], action, size)


def delayed(signal: NDArray[np.float64], ticks: int) -> NDArray[np.float64]:
    """A signal [ticks, ...] that comes late; zeros at first."""
    return np.concatenate((np.zeros_like(signal[:ticks]), signal[: len(signal) - ticks]))


def stepped(
    lif: nir.CubaLIF, drive: NDArray[np.float64], dt: float, dialect: Dialect, reset: Reset = "subtract"
) -> NDArray[np.float64]:
    """Spikes of CubaLIF for the drive [ticks, batch, neurons], float64."""
    if dialect == "rockpool":
        return rockpool(lif, drive, dt)
    is_euler = dialect == "euler"
    mix = dt / lif.tau_mem if is_euler else 1.0 - np.exp(-dt / lif.tau_mem)
    keep = np.exp(-dt / lif.tau_syn)
    syn, mem, spikes = np.zeros(drive.shape[1:]), np.zeros(drive.shape[1:]), []
    for now in drive:
        syn = syn + dt / lif.tau_syn * (lif.w_in * now - syn) if is_euler else keep * syn + now
        mem = mem + mix * (lif.r * syn + lif.v_leak - mem)
        spikes.append((mem > lif.v_threshold).astype(np.float64))
        mem = mem * (1.0 - spikes[-1]) if reset == "zero" else mem - lif.v_threshold * spikes[-1]
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


@pytest.fixture
def norse(monkeypatch: pytest.MonkeyPatch) -> Any:
    """norse's importer in float64; its own float32 flips neurons within rounding of their threshold.

    Where norse is not installed, tests with it are skipped: it needs torchvision, of which PyPI has no build for
    PyTorch's CPU build.
    """
    importer = pytest.importorskip("norse.torch.utils.import_nir")
    monkeypatch.setattr(importer, "_to_tensor", lambda values: torch.as_tensor(values).double())
    return importer


def in_norse(
    norse: Any, weights: nir.Affine, lif: nir.CubaLIF, signal: NDArray[np.float64], dt: float, reset: Reset
) -> NDArray[np.float64]:
    """Spikes of one layer as norse reads it from NIR, for the signal [ticks, batch, inputs]."""
    nodes = {"input": nir.Input(np.array([signal.shape[2]])), "weights": weights, "lif": lif}
    nodes["output"] = nir.Output(np.array([lif.tau_mem.size]))
    graph = nir.NIRGraph(nodes, [("input", "weights"), ("weights", "lif"), ("lif", "output")])
    method = norse.reset.reset_value if reset == "zero" else norse.reset.reset_subtract
    module = norse.from_nir(graph, reset_method=method, dt=dt)
    state, spikes = None, []
    with torch.no_grad():
        for now in torch.tensor(signal):
            fired, state = module(now, state)
            spikes.append(fired.numpy())
    return np.array(spikes)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_no_spike_differs_in_norse(norse: Any, request: pytest.FixtureRequest, reset: Reset) -> None:
    suffix = "" if reset == "subtract" else "_on_chip"
    checkpoint = request.getfixturevalue("on_chip" if suffix else "checkpoint")
    recorded = request.getfixturevalue(f"recorded{suffix}")
    graph, sidecar = to_nir(checkpoint, "euler")
    signal = recorded.features
    for layer in (0, 1):
        weights, lif = graph.nodes[f"weights_{layer + 1}"], graph.nodes[f"layer_{layer + 1}"]
        signal = in_norse(norse, weights, lif, signal, sidecar["dt"], reset)
        assert recorded.spikes[layer].sum() > 5_000
        assert int((signal != recorded.spikes[layer]).sum()) == 0


@pytest.mark.parametrize("dialect", ["exact", "euler"])
def test_no_spike_differs_where_a_spike_sets_the_membrane_to_zero(
    on_chip: Checkpoint, recorded_on_chip: Recorded, dialect: Dialect
) -> None:
    graph, sidecar = to_nir(on_chip, dialect)
    assert (sidecar["reset"], sidecar["input_delay_ticks"]) == ("mem = 0 after a spike", 1)
    signal = recorded_on_chip.features
    for layer in (0, 1):
        weights, lif = graph.nodes[f"weights_{layer + 1}"], graph.nodes[f"layer_{layer + 1}"]
        drive = signal @ weights.weight.T + weights.bias
        signal = stepped(lif, drive, sidecar["dt"], dialect, "zero")
        assert recorded_on_chip.spikes[layer].sum() > 5_000
        assert int((signal != recorded_on_chip.spikes[layer]).sum()) == 0
        if dialect == "exact":
            assert int((in_snntorch(lif, drive, sidecar["dt"]) != signal).sum()) == 0


def in_snntorch(lif: nir.CubaLIF, drive: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
    """Spikes of snntorch's own neurons, which it sets to zero; drive [ticks, batch, neurons], float64."""
    beta = np.exp(-dt / lif.tau_mem)
    neuron = snntorch.Synaptic(
        torch.tensor(np.exp(-dt / lif.tau_syn)), torch.tensor(beta), reset_mechanism="zero", reset_delay=False
    )
    synaptic = membrane = torch.zeros(drive.shape[1:], dtype=torch.float64)
    spikes = []
    with torch.no_grad():
        for now in torch.tensor((1.0 - beta) * drive):
            fired, synaptic, membrane = neuron(now, synaptic, membrane)
            spikes.append(fired.numpy())
    return np.array(spikes)


def test_with_a_tick_between_the_layers_the_spikes_come_when_the_sidecar_says(
    on_chip: Checkpoint, recorded_on_chip: Recorded
) -> None:
    """Apart from the first second: biases act from the first tick, before the first features and spikes come."""
    graph, sidecar = to_nir(on_chip, "exact")
    delays = sidecar["one_tick_per_layer"]
    assert delays == {"input_delay_ticks": 0, "readout_delay_ticks": {"spikes_1": 1, "spikes_2": 0}}
    signal = np.roll(recorded_on_chip.features, -1, axis=0)  # as they are computed, without delay
    for layer in (0, 1):
        weights, lif = graph.nodes[f"weights_{layer + 1}"], graph.nodes[f"layer_{layer + 1}"]
        spikes = stepped(lif, signal @ weights.weight.T + weights.bias, sidecar["dt"], "exact", "zero")
        read_out = delayed(spikes, delays["readout_delay_ticks"][f"spikes_{layer + 1}"])
        assert recorded_on_chip.spikes[layer][200:].sum() > 500
        assert int((read_out[200:] != recorded_on_chip.spikes[layer][200:]).sum()) == 0
        signal = delayed(spikes, 1)


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


def test_a_reset_to_zero_is_refused_in_the_dialect_of_rockpool_which_subtracts(on_chip: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"on_chip.safetensors: .* in Rockpool it subtracts the threshold"):
        to_nir(on_chip, "rockpool")


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
