"""Networks that do harm, to see whether gate and rollback keep the arm from them."""

import torch

from spiking_controller.networks.checkpoint import Checkpoint, dump_checkpoint, parse_checkpoint


def spoil(policy: torch.nn.Module) -> None:
    """Do harm to a policy: its readout changes sign, so that it leads away from where it should go."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "readout_weight" in name:
                parameter.neg_()


def spoilt(checkpoint: Checkpoint, parent: str) -> Checkpoint:
    """A copy of networks whose policy is spoilt.

    Args:
        checkpoint: stays as it is.
        parent: of the copy, sha256.
    """
    copy = parse_checkpoint(dump_checkpoint(checkpoint.policy, checkpoint.forward_model, checkpoint.config), "copy")
    spoil(copy.policy)
    return parse_checkpoint(dump_checkpoint(copy.policy, copy.forward_model, copy.config, parent=parent), "forced")
