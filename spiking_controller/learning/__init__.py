"""Learning: the forward model and the policy, replay memory, the joint training loop, checkpoints."""
