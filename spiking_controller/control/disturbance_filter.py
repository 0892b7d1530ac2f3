"""Estimates what disturbs an arm from the torque that nobody expected: a Kalman filter, its loops compiled.

The state x holds, in this order,

    m        mass of a load in the hand, kg
    m·c      the same times its place in the hand's axes, kg·m, [3]
    f        a horizontal force on the hand, N, [2]
    r        what is left at each of the m controlled joints, N·m, [m]

and the torque of the disturbance is linear in it (the moment of inertia about the load's own centre is left out):

    H x = Jᵀ F + J_wᵀ N + r
    F = m·(g - a) - α x mc - ω x (ω x mc) + f,    N = mc x (g - a)

with the hand's acceleration a, its angular velocity ω and acceleration α, and mc in the axes of the base. A vertical
force is a load as far as this goes.

Arrays are float64. Constants stand here since the compiled code on disk is renewed only when this file changes.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from spiking_controller.compilation import compiled

FloatArray = NDArray[np.float64]

MASS: Final = 0
PLACE: Final = slice(1, 4)
FORCE: Final = slice(4, 6)
RESIDUAL: Final = 6
"""The first of the joints' residual torques."""


@compiled(error_model="numpy")
def solve(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """The solution of matrix · x = right by Cholesky; small systems take a third of the time of LAPACK's call.

    Args:
        matrix: symmetric and positive definite, [n, n]; not a number comes out where it is not.
        right: [n, k].
    Returns:
        x, [n, k].
    """
    size, columns = right.shape
    lower = np.zeros((size, size))
    for row in range(size):
        for column in range(row + 1):
            rest = matrix[row, column]
            for inner in range(column):
                rest -= lower[row, inner] * lower[column, inner]
            lower[row, column] = np.sqrt(rest) if row == column else rest / lower[column, column]
    solution = right.copy()
    for column in range(columns):
        for row in range(size):
            for inner in range(row):
                solution[row, column] -= lower[row, inner] * solution[inner, column]
            solution[row, column] /= lower[row, row]
        for row in range(size - 1, -1, -1):
            for inner in range(row + 1, size):
                solution[row, column] -= lower[inner, row] * solution[inner, column]
            solution[row, column] /= lower[row, row]
    return solution


@compiled()
def load_response(
    jacobian: FloatArray,
    turning_jacobian: FloatArray,
    rotation: FloatArray,
    fall: FloatArray,
    angular_velocity: FloatArray,
    angular_acceleration: FloatArray,
    response: FloatArray,
) -> None:
    """H at one instant.

    Args:
        jacobian, turning_jacobian: of the hand's velocity and angular velocity, [3, at least m].
        rotation: from the hand's axes to those of the base, [3, 3].
        fall: g - a, m/s², [3].
        angular_velocity: ω, rad/s, [3].
        angular_acceleration: α, rad/s², [3].
        response: receives H, [m, 6 + m].
    """
    joints = response.shape[0]
    response[:] = 0.0
    w, alpha = angular_velocity, angular_acceleration
    for joint in range(joints):
        for axis in range(3):
            response[joint, 0] += jacobian[axis, joint] * fall[axis]
        response[joint, 4] = jacobian[0, joint]
        response[joint, 5] = jacobian[1, joint]
        response[joint, 6 + joint] = 1.0
    for axis in range(3):
        u0, u1, u2 = rotation[0, axis], rotation[1, axis], rotation[2, axis]
        along = w[0] * u0 + w[1] * u1 + w[2] * u2
        square = w[0] ** 2 + w[1] ** 2 + w[2] ** 2
        force0 = -(alpha[1] * u2 - alpha[2] * u1) - (w[0] * along - u0 * square)
        force1 = -(alpha[2] * u0 - alpha[0] * u2) - (w[1] * along - u1 * square)
        force2 = -(alpha[0] * u1 - alpha[1] * u0) - (w[2] * along - u2 * square)
        moment0 = u1 * fall[2] - u2 * fall[1]
        moment1 = u2 * fall[0] - u0 * fall[2]
        moment2 = u0 * fall[1] - u1 * fall[0]
        for joint in range(joints):
            response[joint, 1 + axis] = (
                jacobian[0, joint] * force0
                + jacobian[1, joint] * force1
                + jacobian[2, joint] * force2
                + turning_jacobian[0, joint] * moment0
                + turning_jacobian[1, joint] * moment1
                + turning_jacobian[2, joint] * moment2
            )


@compiled()
def let_pass(state: FloatArray, covariance: FloatArray, kept: FloatArray, process: FloatArray) -> None:
    """One control period passes: x <- kept·x, P <- kept·P·kept + process; changed in place.

    Args:
        state: x, [s].
        covariance: P, [s, s].
        kept: share of each entry that is left, [s].
        process: variance that comes to each, [s].
    """
    for row in range(state.size):
        state[row] *= kept[row]
        for column in range(state.size):
            covariance[row, column] *= kept[row] * kept[column]
        covariance[row, row] += process[row]


@compiled()
def correct(
    state: FloatArray, covariance: FloatArray, response: FloatArray, measured: FloatArray, variance: FloatArray
) -> float:
    """Take measurements y = H x + noise, one after the other, since their noise is independent; changed in place.

    Args:
        state: x, [s].
        covariance: P, [s, s].
        response: H, [m, s].
        measured: y, [m].
        variance: of the noise, [m].
    Returns:
        The normalised innovation squared, (y - Hx)ᵀ(HPHᵀ + R)⁻¹(y - Hx), whose mean is m.
    """
    size = state.size
    gain = np.empty(size)
    surprise = 0.0
    for joint in range(measured.size):
        innovation, scale = measured[joint], variance[joint]
        for row in range(size):
            innovation -= response[joint, row] * state[row]
            gain[row] = 0.0
            for column in range(size):
                gain[row] += covariance[row, column] * response[joint, column]
        for row in range(size):
            scale += response[joint, row] * gain[row]
        surprise += innovation**2 / scale
        for row in range(size):
            state[row] += gain[row] * innovation / scale
        for row in range(size):
            for column in range(size):
                covariance[row, column] -= gain[row] * gain[column] / scale
    return surprise
