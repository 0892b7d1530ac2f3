"""Spiking networks: neurons, surrogate gradients, initialisation and layered networks. Knows no robot."""
