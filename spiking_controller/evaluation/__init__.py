"""Measures what a controller does and shows it: metrics, figures, animations and reports."""
