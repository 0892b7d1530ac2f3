"""What online learning is worth when the simulated arm changes under the controller."""
