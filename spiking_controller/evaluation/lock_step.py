"""Runs the live graph's controller against a simulated arm, in lock-step and without ROS; many arms side by side."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from spiking_controller.control.arm_state import ArmSample, ArmStateReader, Rejection
from spiking_controller.control.controller import Command, Controller, ControllerSettings, Networks
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.robots.simulation import ArmSimulation
from spiking_controller.tasks.reach import ReachTask
from spiking_controller.units import NANOSECONDS

FloatArray = NDArray[np.float64]
Result = TypeVar("Result")

FOR_EVER: Final = 1e8
"""A push that lasts longer than any run, s."""


class LockStep:
    """An arm and its controller; simulated time passes only in `step`.

    Attributes:
        arm: the simulation.
        controller: of the arm.
    """

    def __init__(
        self,
        task: ReachTask,
        networks: Networks,
        joint_position: FloatArray | None = None,
        settings: ControllerSettings | None = None,
        seed: int = 0,
    ) -> None:
        """Place the arm at rest.

        Args:
            task: that the networks were trained for.
            networks: at the start of an episode.
            joint_position: rad, [n]; by default the arm's home.
            settings: of the controller; by default its own.
            seed: of the noise on the arm's sensors.
        """
        compensated = task.gravity_convention == "compensated"
        self.arm = ArmSimulation(task.arm, task.physics_period, compensated, seed=seed)
        if joint_position is not None:
            self.arm.place(joint_position, np.zeros_like(joint_position))
        self.controller = Controller(task, networks, settings)
        self._reader = ArmStateReader(task.arm.joint_names, task.arm.limits)
        self._names = list(task.arm.joint_names)
        self._torque: FloatArray = np.zeros(len(self._names))

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        joint_position: FloatArray,
        settings: ControllerSettings | None = None,
        seed: int = 0,
    ) -> "LockStep":
        """An arm with the networks of a checkpoint; arguments as above."""
        networks = SpikingAgent(checkpoint.policy, checkpoint.forward_model)
        return cls(checkpoint.task, networks, joint_position, settings, seed)

    @property
    def time(self) -> float:
        """Simulated time, s."""
        return self.arm.time / NANOSECONDS

    def tick(self) -> tuple[ArmSample, Command]:
        """One joint state and the torque that answers it, which acts from the next one on, as in the live graph."""
        reading = self.arm.reading
        sample = self._reader.read(self.arm.time, self._names, reading.position, reading.velocity)
        if isinstance(sample, Rejection):
            raise RuntimeError(f"the simulated arm gave a joint state that is of no use: {sample.sentence}")
        command = self.controller.update(sample)
        self.arm.advance(self._torque)
        self._torque = command.torque
        return sample, command

    def step(self) -> ArmSample | None:
        """A `tick`; its joint state if a control step began with it."""
        sample, command = self.tick()
        return sample if command.new_step else None


def over_arms(function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]]) -> list[Result]:
    """Call a function once for each job, an arm on each processor; results in the order of the jobs.

    Args:
        function: of a module, so that other processes can import it.
        jobs: its arguments.
    """
    # Spawned, not forked: PyTorch and Numba hold threads and locks that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(len(jobs), len(os.sched_getaffinity(0))), _prepare) as pool:
        return pool.starmap(function, jobs, chunksize=1)


def _prepare() -> None:
    """Set a process up; the one that waits for it is interrupted by Ctrl-C and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
