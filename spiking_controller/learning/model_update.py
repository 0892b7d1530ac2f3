"""Checks networks that arrive while others run, in a thread of its own, so that the running ones never wait."""

import queue
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from spiking_controller.errors import ModelContractError
from spiking_controller.learning.agent import SpikingAgent
from spiking_controller.learning.checkpoint import Checkpoint, Contract, check_same_contract, parse_checkpoint


@dataclass(frozen=True)
class Version:
    """Networks that are ready to run, and which they are.

    Attributes:
        agent: at the start of an episode.
        sha256: of their checkpoint.
        parent: sha256 of the checkpoint that they were trained on from; None if from nothing.
    """

    agent: SpikingAgent
    sha256: str
    parent: str | None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Version":
        """Networks that have run once, so that their first step in earnest is not slower than the others."""
        agent = SpikingAgent(checkpoint.policy, checkpoint.forward_model)
        task = checkpoint.task
        observation = np.zeros((1, 2 * task.controlled_joints + task.goal_dimensions))
        agent.act(observation, np.zeros((1, task.goal_dimensions)))
        agent.predict(observation)
        agent.reset(1)
        return cls(agent, checkpoint.metadata["sha256"], checkpoint.metadata.get("parent"))


class UpdateReader:
    """Reads one update after the other; of those that wait, only the latest.

    Attributes:
        results: what came of them: a version, or the error that says why there is none.
    """

    def __init__(self, contract: Contract, source: str, threads: int = 1) -> None:
        """Take networks of this contract only.

        Args:
            contract: of the running networks.
            source: where the updates come from, for messages.
            threads: that PyTorch may use.
        """
        self.results: queue.SimpleQueue[Version | ModelContractError] = queue.SimpleQueue()
        self._contract = contract
        self._source = source
        self._pool = ThreadPoolExecutor(1, "model_update", torch.set_num_threads, (threads,))
        self._last: Future[None] | None = None

    def submit(self, data: bytes) -> None:
        """Read the bytes of a checkpoint file; returns at once."""
        if self._last is not None:
            self._last.cancel()
        self._last = self._pool.submit(self._read, data)

    def refuse(self, sentence: str) -> None:
        """Add the refusal of an update that was not even read."""
        self.results.put(ModelContractError(sentence))

    def close(self) -> None:
        """End the thread; what it has not begun is not read."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, data: bytes) -> None:
        try:
            checkpoint = parse_checkpoint(data, self._source)
            check_same_contract(checkpoint.contract, self._contract, self._source)
            version = Version.of(checkpoint)
        except ModelContractError as error:
            self.results.put(error)
        except Exception as error:
            # Whatever else hostile bytes bring about must not end in silence.
            self.results.put(ModelContractError(f"{self._source}: cannot be read ({type(error).__name__}: {error})."))
        else:
            self.results.put(version)
