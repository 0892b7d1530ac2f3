"""docs/your_arm.md, from the URDF to a running graph: the file, its check, two iterations of training, lock-step."""

import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lifecycle_msgs.msg import Transition

from spiking_controller.cli import main
from spiking_controller.errors import ModelContractError
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.nodes.common import messages
from spiking_controller.resources import share_path
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.arm_identity import arm_hash
from spiking_controller.tasks.environment import ReachVectorEnv
from spiking_controller.tasks.episodes import run_episodes

DOCUMENT = Path(__file__).parents[2] / "docs" / "your_arm.md"
GOAL = (0.4, 0.2, 0.5)
SMALL = {
    "base": str(share_path("config", "train", "any_arm.yaml")),
    "iterations": 2,
    "random_episodes": 6,
    "episodes_per_iteration": 3,
    "replay_episodes": 12,
    "evaluate_every": 2,
    "evaluation_episodes": 4,
    "forward_model": {"hidden": [16], "rank": 4},
    "policy": {"hidden": [16, 12]},
    "model_updates": {"first": 5, "per_iteration": 3, "batch": 8, "warm_up": 2, "unroll": 3},
    "policy_updates": {"per_iteration": 3, "batch": 8, "warm_up": 2, "unroll": 5},
}


@pytest.fixture(scope="module")
def arm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The UR5 of the document."""
    folder = tmp_path_factory.mktemp("my_arm")
    data = str(distribution("example-robot-data").locate_file("cmeel.prefix/share/example-robot-data"))
    (folder / "example-robot-data").symlink_to(data)
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    path = folder / "ur5.yaml"
    path.write_text(blocks[0])
    return path


@pytest.fixture(scope="module")
def checkpoint_file(arm_file: Path) -> Path:
    """Networks of two iterations."""
    config, out = arm_file.with_name("small.yaml"), arm_file.with_name("run")
    config.write_text(yaml.safe_dump(SMALL))
    assert main(["train", str(arm_file), "--config", str(config), "--out", str(out), "--one-process"]) == 0
    return out / "ur5_reach.safetensors"


def test_the_documents_file_lacks_nothing(arm_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arm", "check", str(arm_file)]) == 0
    said = capsys.readouterr().out
    assert "Nothing is missing." in said
    assert "missing or wrong" not in said
    # Those that the document shows, path and the joints left out of it apart.
    shown = re.compile(r"^(?:hand tool0|never touch:|shoulder_|\d+ %|note).*$", flags=re.MULTILINE)
    for line in shown.findall(DOCUMENT.read_text()):
        assert line in said


def test_what_is_missing_is_listed_with_the_fix(arm_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load(arm_file.read_text())
    wrong = arm_file.with_name("wrong.yaml")
    wrong.write_text(yaml.safe_dump(values | {"home": None, "limits": {"velocity": [1.0]}}))
    assert main(["arm", "check", str(wrong)]) == 1
    said = capsys.readouterr().out
    assert said.count("missing or wrong: ") == 2
    assert "limits.velocity is [1.0]" in said
    assert "home is missing" in said
    wrong.write_text(yaml.safe_dump(values | {"home": [0.0, 1.57, 0.0, 0.0, 0.0, 3.0]}))
    assert main(["arm", "check", str(wrong)]) == 1
    assert "home of wrist_3_joint is 3.000 rad, outside of its soft limits" in capsys.readouterr().out


def test_the_contract_names_the_arm_and_refuses_another(arm_file: Path, checkpoint_file: Path) -> None:
    contract = load_checkpoint(checkpoint_file).contract
    assert (contract.task, contract.arm, contract.base_frame, contract.hand) == (
        "ur5_reach",
        "ur5",
        "base_link",
        "tool0",
    )
    assert contract.arm_hash == arm_hash(get_arm(str(arm_file)))
    values = yaml.safe_load(arm_file.read_text())
    changes = (
        ({"home": [0.1, -1.57, 1.57, -1.57, -1.57, 0.0]}, r"home is \[0\.0.* has \[0\.1"),
        ({"armature": 0.2}, r"trained on another ur5: its frames, masses, friction or shapes have changed"),
    )
    for number, (change, sentence) in enumerate(changes):
        other = arm_file.with_name(f"other{number}.yaml")
        other.write_text(yaml.safe_dump(values | {"name": "ur5"} | change))
        with pytest.raises(ModelContractError, match=sentence):
            load_checkpoint(checkpoint_file, str(other))


def test_lock_step_does_what_training_did(arm_file: Path, checkpoint_file: Path, graph: Any, probe: Any) -> None:
    arm = {"arm": str(arm_file)}
    still = {"soft_start": 0.0, "integral_gain": 0.0, "posture_stiffness": 0.0, "disturbance_gain": 0.0}
    controller = graph.controller(use_sim_time=True, autostart=False, checkpoint=str(checkpoint_file), **arm, **still)
    assert probe.change_state(Transition.TRANSITION_CONFIGURE)
    probe.send_accepted_goal(*GOAL)
    bridge = graph.bridge(lock_step=True, real_time_factor=0.0, lock_step_timeout=30.0, **arm)
    probe.wait_for(lambda: probe.time() == 0.0, "the first state")
    assert probe.change_state(Transition.TRANSITION_ACTIVATE)
    probe.wait_for(lambda: probe.time() >= 1.0 and probe.spikes, "a second in lock-step")
    assert controller.stop() == 0
    assert bridge.stop() == 0
    live = {messages.stamp_to_time(state.header.stamp): np.array(state.position) for state in probe.states}
    checkpoint = load_checkpoint(checkpoint_file)
    env = ReachVectorEnv(checkpoint.task, 1, threads=1)
    episodes = run_episodes(
        env, SpikingAgent(checkpoint.policy, checkpoint.forward_model), start="home", goals=np.array([GOAL])
    )
    trained = env.codec.joint_position(episodes.observation[0])
    assert np.abs(trained[50] - trained[0]).max() > 0.01, "the arm moves"
    for step in range(50):
        np.testing.assert_allclose(live[step * 20_000_000], trained[step], atol=1e-6)
