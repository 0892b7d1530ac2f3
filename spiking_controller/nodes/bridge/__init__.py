"""The bridge node: MuJoCo in place of a real arm."""
