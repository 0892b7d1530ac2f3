"""Learning rates jump when a figure rises far above the usual one, and only then."""

import pytest

from spiking_controller.online.change_detector import ChangeDetector


def test_rates_jump_with_a_change_and_fall_as_half_a_cosine() -> None:
    detector = ChangeDetector(1.35, 0.0, annealing=10, usual_rate=0.1)
    assert detector.rate_fraction == 0.1
    assert [detector.see(1.0) for _ in range(50)] == [False] * 50
    assert detector.rate_fraction == pytest.approx(0.1)
    assert detector.see(1.4), "a change after a quiet time"
    assert detector.rate_fraction == 1.0
    assert not detector.see(2.0), "it has begun already"
    assert detector.rate_fraction == 1.0, "but rises farther"
    fractions = []
    for _ in range(10):
        detector.see(1.0)
        fractions.append(detector.rate_fraction)
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[4] == pytest.approx(0.55)
    assert fractions[-1] == pytest.approx(0.1)


def test_what_lasts_becomes_usual() -> None:
    detector = ChangeDetector(2.0, 0.0, annealing=10, usual_rate=0.1)
    for _ in range(50):
        detector.see(1.0)
    began = [detector.see(10.0) for _ in range(200)]
    assert began.index(True) == 0
    assert sum(began) == 1
    assert detector.rate_fraction == pytest.approx(0.1)


def test_small_figures_are_equally_good() -> None:
    detector = ChangeDetector(2.0, 0.005, annealing=10, usual_rate=0.1)
    for _ in range(50):
        detector.see(0.001)
    assert not detector.see(0.009)
    assert detector.see(0.02)
