"""What networks cost: counts by hand, the same counts by NeuroBench's own package, figures of a whole checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
from neurobench.models import TorchModel
from torch import Tensor, nn

from spiking_controller.evaluation.complexity import (
    AC_ENERGY,
    LOIHI_SYNAPTIC_ENERGY,
    MAC_ENERGY,
    Cost,
    connection_sparsity,
    footprint,
    measure_complexity,
    parameter_count,
    step_cost,
)
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.baselines import GRUConfig, GRUNetwork, MLPConfig, MLPNetwork
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.networks.features import ControlNetwork
from spiking_controller.resources import share_path
from spiking_controller.snn.config import NetworkConfig, Recurrence
from spiking_controller.snn.network import SpikingNetwork
from spiking_controller.snn.state import LayerState, NetworkState
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes

PLANAR = share_path("models", "planar_reach.safetensors")


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_spikes(*shape: int, seed: int = 1) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def test_a_spiking_step_counts_as_by_hand() -> None:
    config = NetworkConfig(hidden=(3, 4), rank=2, ticks=2, tick=0.01)
    network = SpikingNetwork(config, inputs=5, outputs=1, seed=1)
    features = torch.tensor([[1.0, 0.0, -2.0, 0.5, 3.0]])
    first = torch.tensor([[[1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]])
    second = torch.tensor([[[0.0, 1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0, 1.0]]])
    cost = step_cost(network, features, network.initial_state(1), (first, second))
    # 4 features that are not zero reach 3 neurons. The 2 latent values of the first tick, in which there are spikes,
    # reach 4 neurons; those of the silent second tick are zero.
    assert cost.effective_macs == 4 * 3 + 2 * 4
    # 2 spikes of the first layer reach 2 latent values and the readout; 4 of the second reach the readout.
    assert cost.effective_acs == 2 * 2 + 2 * 1 + 4 * 1
    assert cost.dense == 5 * 3 + 2 * (3 * 2 + 2 * 4) + 2 * (3 + 4)
    assert cost.neuron_update_macs == 2 * 5 * (3 + 4) + 2 * 3
    assert (cost.activations, cost.active) == (14, 6)


def test_full_matrices_and_recurrence_count_as_by_hand() -> None:
    config = NetworkConfig(hidden=(3,), rank=0, recurrence="step", neuron="lif", ticks=2, tick=0.01)
    network = SpikingNetwork(config, inputs=2, outputs=2, seed=1)
    with torch.no_grad():
        network.recurrent_expand[0][:, 1] = 0.0
    before = network.initial_state(1)
    before = NetworkState(
        (LayerState(before.layers[0].neurons, torch.tensor([[0.5, 0.5, 0.0]])),),
        before.readout_synaptic,
        before.readout_membrane,
    )
    spikes = torch.tensor([[[1.0, 1.0, 1.0]], [[0.0, 0.0, 1.0]]])
    cost = step_cost(network, torch.ones(1, 2), before, (spikes,))
    # Of the two neurons that fired in the step before, one has no outgoing weight left.
    assert cost.effective_macs == 2 * 3 + 1 * 3
    assert cost.effective_acs == 4 * 2
    assert cost.neuron_update_macs == 2 * 3 * 3 + 2 * 3 * 2


def test_only_features_that_are_sent_count() -> None:
    network = SpikingNetwork(NetworkConfig(hidden=(3,), delta=0.1), inputs=4, outputs=1, seed=1)
    silent = (torch.zeros(4, 1, 3),)
    state = network.initial_state(1)._replace(held_features=torch.tensor([[1.0, 0.5, 0.0, 0.0]]))
    cost = step_cost(network, torch.tensor([[1.05, 0.3, 0.0, 2.0]]), state, silent)
    assert cost.effective_macs == 2 * 3
    assert cost.dense == 4 * 3 + 4 * 3


def test_the_footprint_knows_the_bits() -> None:
    config = NetworkConfig(hidden=(8, 4), rank=0)
    chip = replace(config, weight_bits=6, state_bits=16, state_fraction_bits=8)
    plain, rounded = (SpikingNetwork(each, inputs=5, outputs=2, seed=1) for each in (config, chip))
    weights, rows, biases = 8 * 5 + 4 * 8 + 2 * (8 + 4), 8 + 4 + 2 * 2, 8 + 4
    assert footprint(plain) == 4 * parameter_count(plain)
    assert footprint(rounded) == footprint(plain) - (26 * weights - 8 * rows + 16 * biases) // 8


def test_the_baselines_count_as_by_hand() -> None:
    gru = GRUNetwork(GRUConfig(hidden=(4,)), inputs=3, outputs=2, seed=1)
    rest = step_cost(gru, torch.ones(1, 3), gru.initial_state(1), ())
    _, state, _ = gru.step(torch.ones(1, 3), gru.initial_state(1), None)
    moving = step_cost(gru, torch.ones(1, 3), state, ())
    assert rest.effective_macs == 3 * 4 * 3 + 2 * 4 + 4 * 2
    assert moving.effective_macs == moving.dense == 3 * 4 * (3 + 4) + 3 * 4 + 4 * 2
    mlp = MLPNetwork(MLPConfig(hidden=(4,)), inputs=3, outputs=2, seed=1)
    with torch.no_grad():
        first = mlp.layers[0]
        assert isinstance(first, nn.Linear)
        first.weight.fill_(0.5)
        first.bias.copy_(torch.tensor([1.0, -9.0, 1.0, -9.0]))
    cost = step_cost(mlp, torch.ones(1, 3), mlp.initial_state(1), ())
    assert cost.effective_macs == 3 * 4 + 2 * 2
    assert cost.dense == 3 * 4 + 4 * 2
    assert (cost.effective_acs, cost.activations, cost.active) == (0, 4, 2)


class Unrolled(nn.Module):
    """A baseline as NeuroBench wants it: its steps over a sequence [batch, steps, features]."""

    def __init__(self, network: ControlNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, sequence: Tensor) -> Tensor:
        state, outputs = self.network.initial_state(len(sequence)), []
        for features in sequence.swapaxes(0, 1):
            output, state, _ = self.network.step(features, state, None)
            outputs.append(output)
        return torch.stack(outputs, 1)


class LinearTwin(nn.Module):
    """The connections of a spiking network as linear modules, through which recorded spikes are sent tick by tick."""

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()

        def linear(weight: Tensor) -> nn.Linear:
            module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            module.weight.data = weight.detach()
            return module

        self.is_tick_wise = network.config.recurrence == "tick"
        self.features = linear(network.input_weight)
        self.compress = nn.ModuleList(map(linear, network.compress))
        self.expand = nn.ModuleList(map(linear, network.expand))
        self.recurrent_compress = nn.ModuleList(map(linear, network.recurrent_compress))
        self.recurrent_expand = nn.ModuleList(map(linear, network.recurrent_expand))
        self.readout = nn.ModuleList(map(linear, network.readout_weight))

    def step(self, features: Tensor, state: NetworkState, spikes: tuple[Tensor, ...]) -> None:
        self.features(features)
        for index, own in enumerate(state.layers):
            # The mean spikes of the step before, or the spikes of each tick before.
            fed_back = [own.mean_spikes, *spikes[index][:-1]] if self.is_tick_wise else [own.mean_spikes]
            for values in fed_back:
                self.recurrent_expand[index](self.recurrent_compress[index](values))
        for layer, compress, expand in zip(spikes[:-1], self.compress, self.expand, strict=True):
            for tick in layer:
                expand(compress(tick))
        for layer, readout in zip(spikes, self.readout, strict=True):
            for tick in layer:
                readout(tick)


def prune(network: nn.Module) -> None:
    """Every third weight is set to zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 2:
                parameter.view(-1)[::3] = 0.0


@pytest.mark.parametrize(
    "network",
    [
        GRUNetwork(GRUConfig(hidden=(6, 5)), 7, 3, seed=2),
        MLPNetwork(MLPConfig(hidden=(6, 5)), 7, 3, seed=2),
    ],
)
def test_neurobench_counts_the_same_for_a_baseline(network: ControlNetwork) -> None:
    assert isinstance(network, nn.Module)
    prune(network)
    sequence = noise(4, 8, 7)
    sequence[:, :, 2] = 0.0
    cost, state = Cost(), network.initial_state(4)
    for features in sequence.swapaxes(0, 1):
        cost = cost.plus(step_cost(network, features, state, ()))
        _, state, _ = network.step(features, state, None)
    model = TorchModel(Unrolled(network))
    model.register_hooks()
    outputs = model(sequence)
    counted = SynapticOperations()(model, outputs, (sequence, outputs))
    assert counted["Effective_MACs"] == cost.effective_macs / 4
    assert counted["Dense"] == cost.dense / 4
    assert counted["Effective_ACs"] == cost.effective_acs == 0
    if isinstance(network, MLPNetwork):
        sparsity = ActivationSparsity()(model, outputs, (sequence, outputs))
        assert sparsity == pytest.approx(1 - cost.active / cost.activations)
        assert ConnectionSparsity()(model) == pytest.approx(connection_sparsity(network), abs=1e-4)
    assert ParameterCount()(model) == parameter_count(network)
    assert Footprint()(model) == footprint(network)


@pytest.mark.parametrize("recurrence", ["step", "tick"])
def test_neurobench_counts_the_same_for_the_connections_of_a_spiking_network(recurrence: Recurrence) -> None:
    network = SpikingNetwork(NetworkConfig(hidden=(16, 12), recurrence=recurrence, rank=4), 7, 3, seed=3)
    prune(network)
    twin = LinearTwin(network)
    model = TorchModel(twin)
    model.register_hooks()
    cost, state, effective = Cost(), network.initial_state(4), network.effective()
    with torch.no_grad():
        for features in 2.0 * noise(20, 4, 7):
            before = state
            _, state, spikes = network.step(features, before, effective)
            assert all(bool(layer.any()) for layer in spikes)
            cost = cost.plus(step_cost(network, features, before, spikes))
            twin.step(features, before, spikes)
    counted = SynapticOperations()(model, torch.zeros(4), (torch.zeros(4), torch.zeros(4)))
    assert counted["Effective_MACs"] == cost.effective_macs / 4
    assert counted["Effective_ACs"] == cost.effective_acs / 4
    assert counted["Dense"] == cost.dense / 4
    assert ConnectionSparsity()(model) == pytest.approx(connection_sparsity(network), abs=1e-4)


def test_a_checkpoint_is_measured_on_what_its_policy_did() -> None:
    checkpoint = load_checkpoint(PLANAR)
    env = ReachVectorEnv(checkpoint.task, 4)
    agent = SpikingAgent(checkpoint.policy)
    spikes = []

    class Listening:
        def reset(self, batch: int) -> None:
            agent.reset(batch)

        def act(self, observation: np.ndarray, goal: np.ndarray) -> np.ndarray:
            action = agent.act(observation, goal)
            spikes.append({name: layer.mean() for name, layer in agent.spikes.items()})
            return action

    episodes = run_episodes(env, Listening(), seed=1)
    only_first = replace(episodes, observation=episodes.observation[:1], action=episodes.action[:1])
    only_first = replace(only_first, goal=episodes.goal[:1])
    metrics = measure_complexity(checkpoint, only_first)["policy"]
    for layer, rate in metrics["spikes_per_neuron_per_second_by_layer"].items():
        seen = np.mean([step[f"policy/{layer}"] for step in spikes]) / checkpoint.config.policy.tick
        assert rate == pytest.approx(seen, rel=1e-5)
    assert metrics["activation_sparsity"] > 0.5
    assert metrics["parameters"] == sum(p.numel() for p in checkpoint.policy.parameters())
    assert 0 < metrics["effective_macs"] + metrics["effective_acs"] < metrics["dense_operations"]
    synaptic = metrics["effective_macs"] * MAC_ENERGY + metrics["effective_acs"] * AC_ENERGY
    assert metrics["energy_45nm_j"] == pytest.approx(synaptic)
    updates = metrics["neuron_update_macs"] * MAC_ENERGY
    assert metrics["energy_45nm_with_neurons_j"] == pytest.approx(synaptic + updates)
    operations = metrics["effective_macs"] + metrics["effective_acs"]
    assert metrics["energy_loihi_j"] == pytest.approx(operations * LOIHI_SYNAPTIC_ENERGY)
