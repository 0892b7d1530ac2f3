"""On real arms with other limits the stricter of both count."""

import numpy as np
import pytest

from spiking_controller.errors import RobotModelError
from spiking_controller.robots.arm import get_arm
from spiking_controller.robots.hardware import AS_TRAINED, limits_on

PANDA = get_arm("panda").limits


def test_on_the_arm_that_the_networks_were_trained_on_nothing_changes() -> None:
    assert limits_on(AS_TRAINED, PANDA) is PANDA


def test_an_fr3_gets_the_stricter_limit_of_every_joint() -> None:
    fr3, both = get_arm("fr3").limits, limits_on("fr3", PANDA)
    assert both.position_lower[5] == 0.5445
    assert both.position_upper[5] == PANDA.position_upper[5] < fr3.position_upper[5]
    for limits in (fr3, PANDA):
        assert (both.position_lower >= limits.position_lower).all()
        assert (both.position_upper <= limits.position_upper).all()
        assert (both.velocity <= limits.velocity).all()
        assert (both.torque <= limits.torque).all()
        assert (both.torque_rate <= limits.torque_rate).all()


def test_the_home_posture_lies_in_the_soft_bounds_of_an_fr3() -> None:
    lower, upper = limits_on("fr3", PANDA).soft_bounds(0.8)
    home = np.asarray(get_arm("panda").home)
    assert (home > lower).all()
    assert (home < upper).all()


def test_an_arm_with_another_number_of_joints_is_refused() -> None:
    with pytest.raises(RobotModelError, match=r"hardware is 'fr3', an arm of 7 joints, .* trained on one of 2"):
        limits_on("fr3", get_arm("planar_arm").limits)
