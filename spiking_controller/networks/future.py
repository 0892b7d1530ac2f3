"""What the networks expect to happen next: the policy acts on what the forward model predicts, step after step."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.tasks.observation import ObservationCodec
from spiking_controller.tasks.reach import ReachTask

FloatArray = NDArray[np.float64]


class Future(NamedTuple):
    """An imagined future, from the present on, one control period apart.

    Attributes:
        joint_position: of all joints, rad, [steps + 1, n]; joints that the networks do not drive stay.
        joint_velocity: of the controlled joints, rad/s, [steps + 1, m].
        hand_position: m in the base frame, [steps + 1, 3].
    """

    joint_position: FloatArray
    joint_velocity: FloatArray
    hand_position: FloatArray


class FutureImagination:
    """Rolls copies of the networks out. They are warmed up on the latest states, since neurons have a state, too."""

    def __init__(self, task: ReachTask, agent: SpikingAgent) -> None:
        """Imagine with these networks; nobody else may use the agent.

        Args:
            task: that they were trained for.
            agent: policy and forward model.
        """
        self._task = task
        self._agent = agent
        self._codec = ObservationCodec(task)

    def imagine(self, joint_position: FloatArray, joint_velocity: FloatArray, goal: FloatArray, steps: int) -> Future:
        """The future after the latest of these states.

        Args:
            joint_position: of all joints, at the latest control steps, oldest first, rad, [past, n].
            joint_velocity: rad/s, [past, n].
            goal: m, [d].
            steps: control steps to look ahead.
        """
        chain, controlled = self._task.arm.chain, self._task.controlled_joints
        target = np.asarray(goal, dtype=np.float64)[None, : self._task.goal_dimensions]
        hand = chain.position(joint_position)
        observed = self._codec.encode(joint_position, joint_velocity, hand)[:, None]
        self._agent.reset(1)
        for seen in observed:
            self._agent.act(seen, target)
            predicted = self._agent.predict(seen)
        imagined = [predicted]
        for _ in range(steps - 1):
            self._agent.act(imagined[-1], target)
            imagined.append(self._agent.predict(imagined[-1]))
        observation = np.concatenate([observed[-1], *imagined])
        posture = np.repeat(joint_position[-1:], steps + 1, axis=0)
        posture[:, :controlled] = self._codec.joint_position(observation)
        return Future(posture, self._codec.joint_velocity(observation), chain.position(posture))
