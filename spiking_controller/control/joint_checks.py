"""The loops over joints of `state_check` and `response_lag`, compiled: they run at every joint state.

Arrays are float64, [n] joints, unless said. Constants stand here since the compiled code on disk is renewed only when
this file changes.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.compilation import compiled

FloatArray = NDArray[np.float64]

JUMP_WAY: Final = 0.012
"""A position that leaves its velocity behind by this at once, rad, has jumped,"""
JUMP_FRACTION: Final = 0.3
"""plus this fraction of what the velocity explains."""
VELOCITY_JUMP: Final = 0.8
"""A velocity that changes by this at once, rad/s, has jumped,"""
FASTEST_ACCELERATION: Final = 250.0
"""plus this times the time between, rad/s²."""
FROZEN_WAY: Final = 0.006
"""A joint that should have moved by this, rad, and tells the same angle to the last bit, is frozen."""
BRAKING: Final = 30.0
"""A joint can come to rest as fast as this by itself, rad/s²."""
SILENT_TORQUE: Final = 3.5
"""What friction may hold back, N·m."""


@compiled()
def find_jump(
    position: FloatArray,
    last_position: FloatArray,
    velocity: FloatArray,
    last_velocity: FloatArray,
    age: FloatArray,
    fastest: FloatArray,
    off: float,
    longest_step: float,
    renewed_ago: float,
    believed: bool,
) -> int:
    """The joint whose angle or velocity has jumped most; -1 where none has.

    Args:
        position, velocity: rad and rad/s.
        last_position, last_velocity: of the sample before.
        age: since the joint's angle was renewed last, s.
        fastest: velocity limits, rad/s.
        off: by which the time of a renewal may be wrong, s.
        longest_step: for which an arm may have moved unseen, s.
        renewed_ago: since any angle was renewed last, s.
        believed: whether the velocities are; those that are known to be wrong say nothing.
    """
    worst, most = -1, 0.0
    for joint in range(position.size):
        way = position[joint] - last_position[joint]
        excess = 0.0
        # An angle that is not renewed yet has not jumped.
        if way != 0.0:
            step = min(age[joint], longest_step)
            if believed:
                mean = 0.5 * (velocity[joint] + last_velocity[joint])
                excess = abs(way - mean * step) - JUMP_WAY - abs(mean) * (JUMP_FRACTION * step + off)
            else:
                excess = abs(way) - JUMP_WAY - fastest[joint] * step
        if believed:
            change = abs(velocity[joint] - last_velocity[joint])
            excess = max(excess, change - VELOCITY_JUMP - FASTEST_ACCELERATION * renewed_ago)
        if excess > most:
            worst, most = joint, excess
    return worst


@compiled()
def find_frozen(
    position: FloatArray,
    last_position: FloatArray,
    velocity: FloatArray,
    last_velocity: FloatArray,
    torque: FloatArray,
    period: float,
    longest_age: float,
    believed: bool,
    inertia: FloatArray,
    seen: FloatArray,
    age: FloatArray,
    expected: FloatArray,
    rest_torque: FloatArray,
    pushed_velocity: FloatArray,
    pushed_way: FloatArray,
) -> int:
    """A joint that tells the same angle to the last bit although it must have moved; -1 where there is none.

    It must have moved where its velocity says so, or where the torque would have pushed it: unless a velocity that
    changes says that other joints, or something in its way, hold it.

    Args:
        position, last_position, velocity, last_velocity, believed: as in `find_jump`.
        torque: that the arm has got since the sample before, N·m.
        period: since that sample, s.
        longest_age: that an angle may have before it is suspicious, s.
        inertia: kg·m².
        seen: speed that angles showed last, rad/s.
        age: as in `find_jump`; set to 0 where an angle is new.
        expected: way that the joint should have gone since its angle was renewed, rad; changed.
        rest_torque: that acted then, N·m, not a number before anything is known; changed.
        pushed_velocity, pushed_way: that the torque on top of it should have caused, rad/s and rad; changed.
    """
    frozen = -1
    for joint in range(position.size):
        if position[joint] != last_position[joint]:
            age[joint] = expected[joint] = pushed_velocity[joint] = pushed_way[joint] = 0.0
            rest_torque[joint] = torque[joint]
            continue
        told = abs(velocity[joint]) if believed else 0.0
        expected[joint] += period * max(told, seen[joint] - BRAKING * age[joint])
        if np.isnan(rest_torque[joint]):
            rest_torque[joint] = torque[joint]
        if believed and velocity[joint] != last_velocity[joint]:
            pushed_velocity[joint] = pushed_way[joint] = 0.0
            rest_torque[joint] = torque[joint]
        push = torque[joint] - rest_torque[joint]
        push = max(push - SILENT_TORQUE, 0.0) + min(push + SILENT_TORQUE, 0.0)
        pushed_velocity[joint] += period * push / inertia[joint]
        pushed_way[joint] += period * pushed_velocity[joint]
        has_moved = expected[joint] > FROZEN_WAY or abs(pushed_way[joint]) > FROZEN_WAY
        if frozen < 0 and age[joint] > longest_age and has_moved:
            frozen = joint
    return frozen


@compiled()
def likeness_by_lag(expected: FloatArray, seen: FloatArray, likeness: FloatArray) -> None:
    """Correlation of two series for each lag.

    Args:
        expected: [points + lags, n].
        seen: its last points, as they should be without lag, [points, n].
        likeness: receives the correlations, [lags].
    """
    points, joints = seen.shape
    lags = likeness.size
    size = 1e-9
    for point in range(points):
        for joint in range(joints):
            size += seen[point, joint] ** 2
    for lag in range(lags):
        product, other = 0.0, 1e-9
        for point in range(points):
            for joint in range(joints):
                value = expected[lags - lag + point, joint]
                product += value * seen[point, joint]
                other += value**2
        likeness[lag] = product / np.sqrt(size * other)
