"""`spiking_controller compare`: one table, a column for each controller, with the figures that `evaluate` gives."""

import json
from pathlib import Path

import pytest

from spiking_controller.cli import main
from spiking_controller.evaluation.evaluate import evaluate_checkpoint
from spiking_controller.networks.checkpoint import build_networks, load_checkpoint, save_checkpoint
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.networks.features import ARCHITECTURES
from spiking_controller.resources import share_path

PLANAR = share_path("models", "planar_reach.safetensors")
PANDA = share_path("models", "panda_reach.safetensors")


def tiny_checkpoint(path: Path, model: str, policy: str, seed: int = 1) -> Path:
    """Untrained networks."""
    config = TrainingConfig(
        "planar_reach",
        seed=seed,
        forward_model=ARCHITECTURES[model](hidden=(8,)),
        policy=ARCHITECTURES[policy](hidden=(8,)),
    )
    save_checkpoint(path, *build_networks(config), config, evaluation={"seconds": 90.0})
    return path


def cells(text: str, row: str, block: str) -> list[str]:
    """The cells of a row in a block of the table."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    first = next(index for index, line in enumerate(lines) if line[0] == f"**{block}**")
    return next(line[1:] for line in lines[first:] if line[0] == row)


def test_every_controller_has_a_column_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gru = tiny_checkpoint(tmp_path / "gru.safetensors", "gru", "mlp")
    mlp = tiny_checkpoint(tmp_path / "mlp.safetensors", "mlp", "mlp")
    arguments = ["compare", str(PLANAR), str(gru), str(mlp), "--classical", "--goals", "6"]
    arguments += ["--markdown", str(tmp_path / "table.md"), "--json", str(tmp_path / "figures.json")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    text = (tmp_path / "table.md").read_text()
    assert text in printed
    names = [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]
    assert names == ["", "spiking", "GRU model, MLP policy", "MLP", "classical"]
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1

    metrics = json.loads((tmp_path / "figures.json").read_text())
    assert [column["name"] for column in metrics["columns"]] == names[1:]
    spiking, _, _, classical = metrics["columns"]
    checkpoint = load_checkpoint(PLANAR)
    expected = evaluate_checkpoint(checkpoint, goals=6)
    assert spiking["alone"] == expected["network_alone"]
    assert spiking["with_integral"] == expected["with_integral"]
    assert spiking["complexity"] == expected["complexity"]
    assert spiking["rest"] == expected["rest"]
    assert classical["alone"]["final_error_m_median"] < 0.005

    median = f"{1e3 * expected['network_alone']['final_error_m_median']:.2f}"
    assert cells(text, "final error, median (mm)", "network alone")[0] == median
    assert cells(text, "final error, median (mm)", "with the set-point integral")[3] == "–"
    assert cells(text, "goals with final error under 3 cm (%)", "network alone")[3] == "100.0"
    rates = cells(text, "spikes per neuron per second", "policy")
    assert float(rates[0]) > 1
    assert rates[1:] == ["–", "–", "–"]
    assert cells(text, "policy, spikes per neuron per second: on the way", "coming to rest")[1:] == ["–", "–", "–"]
    noise = cells(text, "action at a frozen observation, deviation", "coming to rest")
    assert float(noise[0]) == pytest.approx(spiking["rest"]["rest_action_noise"], abs=1e-6)
    assert float(noise[2]) == 0.0
    assert noise[3] == "–"
    accumulates = cells(text, "synaptic operations: ACs", "forward model")
    assert float(accumulates[0]) > 0
    assert accumulates[1:] == ["0", "0", "–"]
    inputs, model_inputs = 6 + 4 + 2 + 2 + 6, 6 + 4 + 2 + 2
    parameters = [8 * inputs + 8 + 8 * 2 + 2, 3 * 8 * (model_inputs + 8 + 2) + 8 * 2 + 2]
    assert cells(text, "parameters", "policy")[1] == str(parameters[0])
    assert cells(text, "parameters", "forward model")[1] == str(parameters[1])
    minutes = checkpoint.metadata["evaluation"]["seconds"] / 60
    assert cells(text, "wall time (min)", "training") == [f"{minutes:.1f}", "1.5", "1.5", "–"]


def test_seeds_are_pooled_and_like_networks_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(tiny_checkpoint(tmp_path / f"{seed}.safetensors", "mlp", "mlp", seed)) for seed in (1, 2)]
    arguments = ["compare", *paths, paths[1], "--goals", "3", "--seeds", "5", "6", "--json", str(tmp_path / "f.json")]
    assert main(arguments) == 0
    assert "6 goals, random starts, seed 5, 6" in capsys.readouterr().out
    columns = json.loads((tmp_path / "f.json").read_text())["columns"]
    assert [column["name"] for column in columns] == ["MLP, seed 1", "MLP, seed 2 (1)", "MLP, seed 2 (2)"]
    checkpoint = load_checkpoint(Path(paths[0]))
    errors = [
        evaluate_checkpoint(checkpoint, goals=3, seed=seed)["network_alone"]["share_on_target_12.3cm_mean"]
        for seed in (5, 6)
    ]
    assert columns[0]["alone"]["share_on_target_12.3cm_mean"] == pytest.approx(sum(errors) / 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([str(PLANAR), str(PANDA)], "compare checkpoints of one task"),
        ([str(PLANAR), "--names", "a", "b"], "--names gives 2 names for 1 checkpoints"),
        ([str(PLANAR), "--goals", "0"], "--goals 0"),
        (["nowhere.safetensors"], "nowhere.safetensors: there is no such checkpoint"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 2
    assert sentence in capsys.readouterr().err
