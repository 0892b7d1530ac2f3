"""Forward model, policy, baselines, imagination and their checkpoints."""
