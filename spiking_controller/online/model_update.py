"""Networks that arrive while others run: one process checks them, another one takes them over ready to run."""

import hashlib
import io
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spiking_controller.errors import ModelContractError
from spiking_controller.networks.agent import SpikingAgent
from spiking_controller.networks.checkpoint import Checkpoint, Contract, check_same_contract, parse_checkpoint


@dataclass(frozen=True)
class Version:
    """Networks that are ready to run, and which they are.

    Attributes:
        agent: at the start of an episode.
        sha256: of their checkpoint.
        parent: sha256 of the checkpoint that they were trained on from; None if from nothing.
        policy_digest: of the policy's parameters.
    """

    agent: SpikingAgent
    sha256: str
    parent: str | None
    policy_digest: str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Version":
        """Networks that have run once, so that their first step in earnest is not slower than the others."""
        agent = SpikingAgent(checkpoint.policy, checkpoint.forward_model)
        task = checkpoint.task
        observation = np.zeros((1, 2 * task.controlled_joints + task.goal_dimensions))
        agent.act(observation, np.zeros((1, task.goal_dimensions)))
        agent.predict(observation)
        agent.reset(1)
        digest = hashlib.sha256()
        for parameter in checkpoint.policy.state_dict().values():
            digest.update(parameter.numpy().tobytes())
        return cls(agent, checkpoint.metadata["sha256"], checkpoint.metadata.get("parent"), digest.hexdigest())

    @classmethod
    def read(cls, data: bytes, running: Contract, source: str) -> "Version":
        """Check the bytes of a checkpoint file, from wherever they come, and build the networks.

        Args:
            data: any bytes.
            running: the contract of the networks that are to be replaced.
            source: where the bytes come from, for messages.
        Raises:
            ModelContractError: says why they cannot take over.
        """
        try:
            checkpoint = parse_checkpoint(data, source)
            check_same_contract(checkpoint.contract, running, source)
            return cls.of(checkpoint)
        except ModelContractError:
            raise
        except Exception as error:
            # Whatever else hostile bytes bring about must not end in silence.
            raise ModelContractError(f"{source}: cannot be read ({type(error).__name__}: {error}).") from error

    def pack(self) -> bytes:
        """For a process of ours, where `unpack` takes a twentieth of the time of `read`. Never for files or topics."""
        packed = io.BytesIO()
        _Pickler(packed, protocol=5).dump(self)
        return packed.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> "Version":
        """What `pack` packed. Pickle trusts its input: only for bytes from a process that this one has started."""
        version = pickle.loads(packed)
        assert isinstance(version, cls)
        return version


class _Pickler(pickle.Pickler):
    """Sends tensors as arrays, whose memory is copied once; PyTorch would write a file of its own for each of them."""

    def reducer_override(self, obj: Any) -> Any:
        """See `pickle.Pickler`."""
        return (torch.from_numpy, (obj.detach().numpy(),)) if isinstance(obj, torch.Tensor) else NotImplemented
