"""The benchmark of the torque watchdog measures a real one."""

import argparse

import pytest

from spiking_controller.commands import benchmark_watchdog
from spiking_controller.errors import ConfigError


def test_commands_go_through_a_real_watchdog_and_none_of_them_backwards_in_time() -> None:
    delays = benchmark_watchdog.measure(1.0)
    assert len(delays) > 50
    assert delays.min() > 0.0
    assert delays.max() < 10.0


def test_no_time_to_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match="--seconds 0 must be above 0"):
        benchmark_watchdog.run(argparse.Namespace(seconds=0.0))
