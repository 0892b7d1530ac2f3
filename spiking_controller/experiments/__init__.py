"""Studies made of everything below: ablations, adaptation to a changed arm, benchmarks."""
