"""Compiled kernels of spiking layers and the unrolls made of them."""
