"""The demo's pictures: drawn from any recording, and no picture where there is no OpenGL."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from spiking_controller.evaluation.demo import rendering
from spiking_controller.evaluation.demo.plots import draw_distance, draw_spikes
from spiking_controller.evaluation.demo.recording import Recording
from spiking_controller.robots.arm import get_arm


@pytest.fixture
def recording() -> Recording:
    """Half a second with the Panda at home and the goal in front of the hand."""
    arm = get_arm("panda")
    time = np.arange(0.0, 0.5, 0.01)
    posture = np.tile(arm.home, (len(time), 1))
    hand = arm.chain.position(posture)
    steps = np.arange(0.0, 0.5, 0.02)
    rng = np.random.default_rng(0)
    return Recording(
        joint_names=arm.joint_names,
        joint_time=time,
        joint_position=posture,
        hand_time=time,
        hand_position=hand,
        goal_time=np.array([0.0]),
        goal=hand[:1] + np.array([[0.15, -0.1, 0.0]]),
        goal_duration=0.5,
        spike_time=steps,
        spikes={"policy/hidden1": (rng.random((len(steps), 4, 100)) < 0.2).astype(np.uint8)},
    )


def test_figures_are_drawn(recording: Recording, tmp_path: Path) -> None:
    draw_distance(recording, tmp_path / "distance.png")
    draw_spikes(recording, tmp_path / "spikes.png")
    for name in ("distance.png", "spikes.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 1000
            assert np.asarray(picture.convert("L")).std() > 5.0


def test_raster_is_drawn_also_when_the_recording_is_shorter_than_its_window(
    recording: Recording, tmp_path: Path
) -> None:
    short = dataclasses.replace(
        recording,
        spike_time=recording.spike_time[:2],
        spikes={name: spikes[:2] for name, spikes in recording.spikes.items()},
    )
    draw_spikes(short, tmp_path / "spikes.png")
    assert (tmp_path / "spikes.png").exists()


def test_animation_is_drawn_or_the_reason_is_given(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "recording.npz")
    output = tmp_path / "arm.gif"
    try:
        rendering.render(tmp_path / "recording.npz", "panda", output)
    except rendering.RenderingError as error:
        refusal = str(error)
    else:
        refusal = ""
        with Image.open(output) as animation:
            assert sum(1 for _ in ImageSequence.Iterator(animation)) == 4
            colours = np.asarray(animation.convert("RGB")).reshape(-1, 3).astype(int)
        red = (colours[:, 0] > 150) & (colours[:, 1] < 90) & (colours[:, 2] < 90)
        assert red.any(), "the goal is not to be seen"
    assert output.exists() == (not refusal)
    assert not refusal or "egl" in refusal


def test_platform_named_by_the_user_is_the_only_one_tried(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording.save(tmp_path / "recording.npz")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(rendering.RenderingError, match="disable") as caught:
        rendering.render(tmp_path / "recording.npz", "panda", tmp_path / "arm.gif")
    assert "egl:" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
