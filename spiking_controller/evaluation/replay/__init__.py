"""Judges networks on recorded or live messages of an arm."""
