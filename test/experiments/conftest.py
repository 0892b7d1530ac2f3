"""An ablation study of tiny training runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from spiking_controller.resources import share_path

TINY: dict[str, Any] = {
    "iterations": 2,
    "random_episodes": 6,
    "episodes_per_iteration": 3,
    "replay_episodes": 12,
    "evaluate_every": 2,
    "evaluation_episodes": 4,
    "forward_model": {"hidden": [16], "rank": 4},
    "policy": {"hidden": [16, 12], "rank": 4},
    "model_updates": {"first": 5, "per_iteration": 3, "batch": 8, "warm_up": 2, "unroll": 3},
    "policy_updates": {"per_iteration": 3, "batch": 8, "warm_up": 2, "unroll": 5},
}


def study_content(**factors: dict[str, Any]) -> dict[str, Any]:
    """What a study file holds, for the factors' variants given as name=variants."""
    return {
        "base": str(share_path("config", "train", "planar_reach.yaml")),
        "goals": 4,
        "common": TINY,
        "factors": {
            name: {"question": f"Does {name} matter?", "default": "usual", "variants": variants}
            for name, variants in factors.items()
        },
    }


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two factors of one variant each; the second asks for windows longer than an episode, so that its runs crash."""
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    adaptive = {"policy": {"neuron": "adaptive_lif"}, "forward_model": {"neuron": "adaptive_lif"}}
    content = study_content(neuron={"adaptive": adaptive}, unroll={"beyond": {"model_updates": {"unroll": 500}}})
    path.write_text(yaml.safe_dump(content))
    return path
