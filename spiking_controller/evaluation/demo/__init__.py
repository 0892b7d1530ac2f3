"""Recording, plots, animation and report of the demo."""
