"""Limits of real arms that differ from the arm that networks were trained on: of the two, the stricter counts."""

from dataclasses import fields
from typing import Final

import numpy as np

from spiking_controller.errors import RobotModelError
from spiking_controller.robots.limits import JointLimits

AS_TRAINED: Final = "as_trained"
"""The real arm has the limits of the one that the networks were trained on."""

HARDWARE: Final = {
    # Franka Research 3, frankarobotics.github.io/docs/robot_specifications.html. The links are as long as the Panda's;
    # joint 6 turns less far down.
    "fr3": JointLimits(
        position_lower=np.array([-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159]),
        position_upper=np.array([2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159]),
        velocity=np.array([2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26]),
        torque=np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0]),
        torque_rate=np.full(7, 1000.0),
    ),
}


def limits_on(hardware: str, trained: JointLimits) -> JointLimits:
    """The limits to keep when networks drive some hardware.

    Args:
        hardware: a name in HARDWARE, or AS_TRAINED.
        trained: limits of the arm that the networks were trained on, [n].
    Returns:
        joint by joint the stricter of both; `trained` itself for AS_TRAINED.
    Raises:
        RobotModelError: the two arms have different numbers of joints.
    """
    if hardware == AS_TRAINED:
        return trained
    real = HARDWARE[hardware]
    if real.joints != trained.joints:
        raise RobotModelError(
            f"hardware is '{hardware}', an arm of {real.joints} joints, but the networks were trained on one of "
            f"{trained.joints}; set hardware to {AS_TRAINED}."
        )
    stricter = {
        field.name: (np.maximum if field.name == "position_lower" else np.minimum)(
            getattr(real, field.name), getattr(trained, field.name)
        )
        for field in fields(JointLimits)
    }
    return JointLimits(**stricter)
