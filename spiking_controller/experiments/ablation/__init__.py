"""Ablation studies: many trainings that differ in one factor at a time."""
