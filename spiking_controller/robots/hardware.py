"""Limits of a real arm that differ from those of the arm that networks were trained on: the stricter ones count."""

from dataclasses import fields
from typing import Final

import numpy as np

from spiking_controller.errors import RobotModelError
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.limits import JointLimits

AS_TRAINED: Final = "as_trained"
"""The real arm has the limits of the one that the networks were trained on."""


def limits_on(hardware: str, trained: JointLimits) -> JointLimits:
    """The limits to keep when networks drive some hardware.

    Args:
        hardware: another arm, as `get_arm` takes it, or AS_TRAINED.
        trained: limits of the arm that the networks were trained on, [n].
    Returns:
        joint by joint the stricter of both; `trained` itself for AS_TRAINED.
    Raises:
        RobotModelError: there is no such arm, or the two have different numbers of joints.
    """
    if hardware == AS_TRAINED:
        return trained
    real = get_arm(hardware).limits
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
