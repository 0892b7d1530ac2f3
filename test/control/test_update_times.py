"""Update times are kept in memory that does not grow, and updates that took too long are counted."""

import pytest

from spiking_controller.control.update_times import UpdateTimes


def test_quantiles_are_those_of_the_latest_updates() -> None:
    times = UpdateTimes(kept=100)
    assert times.quantile(0.5) is None
    for _ in range(100):
        times.add(1.0, None)
    for index in range(100):
        times.add(0.001 * index, None)
    assert times.quantile(0.5) == pytest.approx(0.0495)
    assert times.quantile(1.0) == pytest.approx(0.099)
    assert times.count == 200


def test_an_update_that_takes_longer_than_states_are_apart_is_an_overrun() -> None:
    times = UpdateTimes()
    for duration, allowed in ((0.001, 0.002), (0.003, 0.002), (0.003, None)):
        times.add(duration, allowed)
    assert times.overruns == 1
