"""What `spiking_controller NAME` does, one module per command."""
