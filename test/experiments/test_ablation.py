"""Ablation studies on paper: what a study file asks for, what a wrong one is told, what tables and figures say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pandas import DataFrame
from PIL import Image
from scipy import stats

from spiking_controller.errors import ConfigError
from spiking_controller.experiments.ablation.plots import FINAL_ERROR, draw_factor
from spiking_controller.experiments.ablation.report import markdown, median_estimate
from spiking_controller.experiments.ablation.results import Results
from spiking_controller.experiments.ablation.runs import Outcome, pack, unpack
from spiking_controller.experiments.ablation.study import Factor, Study, load_study
from spiking_controller.networks.config import TrainingConfig, load_config
from spiking_controller.resources import share_path


@pytest.mark.parametrize(
    "name", ["planar", "panda", "planar_paper", "planar_paper_best", "panda_paper", "panda_paper_best"]
)
def test_shipped_studies_load_and_every_variant_differs_from_every_other(name: str) -> None:
    study = load_study(share_path("config", "ablation", f"{name}.yaml"))
    runs = study.runs(1)
    assert len({run.config for run in runs}) == len(runs)
    assert all(factor.question.endswith("?") for factor in study.factors)
    assert study.goals >= 200


def test_the_default_runs_once_per_seed_and_seeds_are_complete_one_after_the_other(study_file: Path) -> None:
    runs = load_study(study_file).runs(2)
    variants = [("default", "default"), ("neuron", "adaptive"), ("unroll", "beyond")]
    assert [run[:3] for run in runs] == [(*variant, seed) for seed in (1, 2) for variant in variants]
    assert all(run.config.seed == run.seed for run in runs)


def test_a_variant_changes_its_own_keys_and_nothing_else(study_file: Path) -> None:
    study = load_study(study_file)
    base = load_config(share_path("config", "train", "planar_reach.yaml"))
    changed = study.factors[1].variants["beyond"]
    assert study.default.policy_updates == replace(base.policy_updates, per_iteration=3, batch=8, warm_up=2, unroll=5)
    assert changed == replace(study.default, model_updates=replace(study.default.model_updates, unroll=500))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
        ({"gaols": 3}, "unknown configuration key 'gaols'"),
        ({"goals": 0}, "goals = 0 must be at least 1"),
        ({"factors": {}}, "factors: is empty"),
        ({"common": {"iteration": 3}}, "common: unknown configuration key 'iteration'"),
        ({"common": {"iterations": 0}}, "common: iterations = 0 must be at least 1"),
        ({"variants": {}}, r"factors.neuron.variants: name at least one"),
        ({"variants": {"usual": {"seed": 2}}}, "none like the default 'usual'"),
        (
            {"variants": {"adaptive": {"policy": {"neurn": "lif"}}}},
            "factors.neuron.variants.adaptive: unknown .* 'neurn'",
        ),
        ({"variants": {"adaptive": {"policy": {"neuron": "fil"}}}}, "factors.neuron.variants.adaptive: .*neuron"),
        ({"variants": {"adaptive": {"policy": 3}}}, "factors.neuron.variants.adaptive: .*policy"),
        ({"variants": {"adaptive": {"iterations": 60}}}, "factors.neuron.variants.adaptive: changes nothing"),
        ({"variants": {"adaptive": {"seed": 9}}}, "factors.neuron.variants.adaptive: changes nothing"),
        ({"variants": {"../lif": {"iterations": 9}}}, r"factors.neuron: the name '../lif' must be of letters"),
        ({"variants": {4: {"iterations": 9}}}, "variants"),
        ({"question": None}, "question"),
        ({"questoin": "Why?"}, "unknown configuration key 'questoin'"),
    ],
)
def test_a_wrong_study_is_refused_by_file_and_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    variants = {"adaptive": {"policy": {"neuron": "adaptive_lif"}}}
    factor: dict[str, Any] = {"question": "Why?", "default": "usual", "variants": variants}
    content: dict[str, Any] = {"base": str(share_path("config", "train", "planar_reach.yaml"))}
    study_keys = {"base", "gaols", "goals", "factors", "common"}
    factor.update({key: value for key, value in change.items() if key not in study_keys})
    content["factors"] = {"neuron": factor}
    content.update({key: value for key, value in change.items() if key in study_keys})
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message) as error:
        load_study(path)
    assert str(tmp_path) in str(error.value)


def test_a_factor_must_not_be_called_default(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    factor = {"question": "Why?", "default": "usual", "variants": {"adaptive": {"policy": {"neuron": "adaptive_lif"}}}}
    base = str(share_path("config", "train", "planar_reach.yaml"))
    path.write_text(yaml.safe_dump({"base": base, "factors": {"default": factor}}))
    with pytest.raises(ConfigError, match=r"factors\.default: 'default' means the runs that change nothing"):
        load_study(path)


def test_the_interval_of_a_median_is_that_of_the_bootstrap_distribution() -> None:
    # The median of n draws with replacement from 1..n is at most k exactly if (n + 1) / 2 draws or more are.
    n = 15
    at_most = [stats.binom.sf((n + 1) // 2 - 1, n, k / n) for k in range(1, n + 1)]
    low, high = (1 + int(np.searchsorted(at_most, share)) for share in (0.025, 0.975))
    assert median_estimate(np.arange(1.0, n + 1)) == (8.0, low, high)


def test_very_few_values_have_the_interval_that_they_can_have() -> None:
    assert median_estimate(np.array([3.0, 1.0, 2.0, 5.0, 4.0])) == (3.0, 1.0, 5.0)
    assert median_estimate(np.array([2.0, 2.0, 2.0])) == (2.0, 2.0, 2.0)
    median, low, high = median_estimate(np.array([7.0]))
    assert median == 7.0
    assert np.isnan([low, high]).all()
    assert np.isnan(median_estimate(np.array([]))).all()


@pytest.fixture
def study() -> Study:
    config = TrainingConfig("planar_reach")
    factor = Factor("neuron", "Does adaptation matter?", "adaptive", {"lif": config, "other": config})
    return Study("example", config, (factor,), 200)


@pytest.fixture
def table() -> DataFrame:
    """Five seeds with widely spread errors; `lif` is always 2 mm worse than the default, `other` failed but once."""
    rows: list[dict[str, Any]] = []
    for seed, error in enumerate((0.005, 0.020, 0.008, 0.040, 0.010), start=1):
        for factor, variant, value in (
            ("default", "default", error),
            ("neuron", "lif", error + 0.002),
            ("neuron", "other", 0.1 if seed == 2 else None),
        ):
            rows.append({"factor": factor, "variant": variant, "seed": seed, FINAL_ERROR: value})
    return DataFrame(rows)


def test_the_table_compares_seed_by_seed_and_counts_failures(study: Study, table: DataFrame) -> None:
    rows = {line.split("|")[1].strip(): line for line in markdown(study, table).splitlines() if line.startswith("|")}
    default, lif, other = (
        [cell.strip() for cell in rows[name].split("|")[2:-1]] for name in ("**adaptive** (default)", "lif", "other")
    )
    assert default[:3] == ["5", "10.0 [5.0, 40.0]", ""]
    assert lif[:3] == ["5", "12.0 [7.0, 42.0]", "+2.0 [+2.0, +2.0]"]
    assert other[:3] == ["1", "100.0", "+80.0"]
    assert [cells[-1] for cells in (default, lif, other)] == ["0", "0", "4"]


def test_the_figure_is_drawn_with_and_without_gradients_in_the_logs(
    study: Study, table: DataFrame, tmp_path: Path
) -> None:
    curves = table[["factor", "variant", "seed"]].merge(DataFrame({"iteration": [1, 2, 3]}), how="cross")
    curves["final_error_m_median"] = np.where(curves["iteration"] == 2, np.nan, 0.5 / curves["iteration"])
    draw_factor(study.factors[0], table, curves, tmp_path / "short.png")
    for network in ("policy", "model"):
        curves[f"{network}_gradient_norm"] = 10.0 / curves["iteration"]
        curves[f"{network}_rate_hz"] = 20.0 + curves["seed"]
    draw_factor(study.factors[0], table, curves, tmp_path / "whole.png")
    pictures = {}
    for name in ("short", "whole"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 1000
            pictures[name] = np.asarray(picture.convert("L")).astype(float)
    half = len(pictures["short"]) // 2
    assert pictures["short"][half:].std() < 0.8 * pictures["whole"][half:].std(), "gradients and rates are not drawn"


def test_a_folder_with_a_study_is_not_overwritten_nor_mixed(study_file: Path, tmp_path: Path) -> None:
    study = load_study(study_file)
    run = study.runs(1)[0]
    results = Results(study, tmp_path, resume=False)
    results.record(run, Outcome("failed", "it broke"))
    with pytest.raises(ConfigError, match="already holds a study; add --resume"):
        Results(study, tmp_path, resume=False)
    with pytest.raises(ConfigError, match="was measured on 4 held-out goals, but the study asks for 5"):
        Results(replace(study, goals=5), tmp_path, resume=True)
    again = Results(study, tmp_path, resume=True)
    assert again.failures([run]) == {"default/default, seed 1": "it broke"}
    results.folder(run).mkdir(parents=True)
    (results.folder(run) / "config.yaml").write_text("task: planar_reach")
    with pytest.raises(ConfigError, match="differs from what the study now asks for default/default, seed 1"):
        again.pending([run])


def test_a_folder_survives_the_way_to_a_cluster_and_back(tmp_path: Path) -> None:
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "there" / "deep" / "file").write_bytes(bytes(range(256)))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "stale").touch()
    unpack(pack(tmp_path / "there"), tmp_path / "here")
    assert [path.relative_to(tmp_path / "here").as_posix() for path in (tmp_path / "here").rglob("*")] == [
        "deep",
        "deep/file",
    ]
    assert (tmp_path / "here" / "deep" / "file").read_bytes() == bytes(range(256))
