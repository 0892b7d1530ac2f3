"""Has a disturbance observer beside the networks of every arm in training episodes, as the live controller has."""

import numpy as np
from numpy.typing import NDArray

from spiking_controller.control.disturbance_observer import DisturbanceObserver
from spiking_controller.networks.agent import ExploringAgent, SpikingAgent
from spiking_controller.tasks.environment import ReachVectorEnv

FloatArray = NDArray[np.float64]


class Observers:
    """A disturbance observer for each arm of an environment; see `tasks.environment.Helper`.

    What they take off is added to the torque, not to the action: the networks are told their own.

    Attributes:
        env: with the arms.
    """

    def __init__(self, env: ReachVectorEnv) -> None:
        """Watch the arms; from now on the environment adds what the observers take off."""
        self.env = env
        self._joints = env.task.controlled_joints
        self._observers = [DisturbanceObserver(env.task) for _ in range(env.num_envs)]
        env.helper = self

    def reset(self) -> None:
        """Episodes begin, with other networks than before."""
        for observer in self._observers:
            observer.forget()
            observer.reset()

    def observe(self, error: FloatArray | None, action: FloatArray) -> None:
        """A control step begins.

        Args:
            error: measured minus predicted velocity, rad/s, [N, m]; None where nothing was predicted.
            action: of the last control step, [N, m].
        """
        position, velocity = self.env.joint_position, self.env.joint_velocity
        for arm, observer in enumerate(self._observers):
            observer.observe(position[arm], velocity[arm], None if error is None else error[arm], action[arm])

    def helped(self, law: FloatArray, joint_velocity: FloatArray) -> FloatArray:
        """See `Helper.helped`."""
        m, wanted = self._joints, law
        for arm, observer in enumerate(self._observers):
            added = observer.compensation(law[arm, :m], joint_velocity[arm, :m])
            if added is not None:
                wanted = law.copy() if wanted is law else wanted
                wanted[arm, :m] += added
        return wanted

    def note_sent(
        self,
        law: FloatArray,
        wanted: FloatArray,
        sent: FloatArray,
        joint_position: FloatArray,
        joint_velocity: FloatArray,
    ) -> None:
        """See `Helper.note_sent`."""
        period = self.env.task.physics_period
        for arm, observer in enumerate(self._observers):
            own, torque = law[arm], sent[arm]
            asked = own if np.array_equal(wanted[arm], own) else wanted[arm]
            observer.add_sent(own, asked, torque, joint_position[arm], joint_velocity[arm], period)
            observer.pass_time(period, torque)


class ObservedAgent:
    """An exploring agent and the observers of its arms; follows `tasks.episodes.Agent`."""

    def __init__(self, agent: ExploringAgent, networks: SpikingAgent, observers: Observers) -> None:
        """Act with an agent.

        Args:
            agent: acts.
            networks: of the agent, with the forward model.
            observers: of the arms.
        """
        self._agent = agent
        self._networks = networks
        self._observers = observers
        self._codec = observers.env.codec
        self._joints = observers.env.task.controlled_joints

    def reset(self, batch: int) -> None:
        """Start of an episode."""
        self._agent.reset(batch)
        self._observers.reset()
        self._action = np.zeros((batch, self._joints))
        self._expected: FloatArray | None = None

    def act(self, observation: NDArray[np.floating], goal: NDArray[np.floating]) -> FloatArray:
        """The agent's actions, [N, m]; the observers learn what the forward model did not expect."""
        expected = self._expected
        error = None if expected is None else self._codec.joint_velocity(observation - expected)
        self._observers.observe(error, self._action)
        self._action = self._agent.act(observation, goal)
        self._expected = self._networks.predict(observation)
        return self._action
