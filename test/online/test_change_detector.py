"""Learning rates jump when a figure is surprisingly large, and only then."""

import pytest

from spiking_controller.online.change_detector import ChangeDetector


def test_rates_jump_with_a_surprise_and_fall_as_half_a_cosine() -> None:
    surprise = ChangeDetector(1.35, 0.0, annealing=10, usual_rate=0.1)
    assert surprise.rate_share == 0.1
    assert [surprise.see(1.0) for _ in range(50)] == [False] * 50
    assert surprise.rate_share == pytest.approx(0.1)
    assert surprise.see(1.4), "surprising after a quiet time"
    assert surprise.rate_share == 1.0
    assert not surprise.see(2.0), "it has begun already"
    assert surprise.rate_share == 1.0, "but rises farther"
    shares = []
    for _ in range(10):
        surprise.see(1.0)
        shares.append(surprise.rate_share)
    assert shares == sorted(shares, reverse=True)
    assert shares[4] == pytest.approx(0.55)
    assert shares[-1] == pytest.approx(0.1)


def test_what_lasts_becomes_usual() -> None:
    surprise = ChangeDetector(2.0, 0.0, annealing=10, usual_rate=0.1)
    for _ in range(50):
        surprise.see(1.0)
    began = [surprise.see(10.0) for _ in range(200)]
    assert began.index(True) == 0
    assert sum(began) == 1
    assert surprise.rate_share == pytest.approx(0.1)


def test_small_figures_are_equally_good() -> None:
    surprise = ChangeDetector(2.0, 0.005, annealing=10, usual_rate=0.1)
    for _ in range(50):
        surprise.see(0.001)
    assert not surprise.see(0.009)
    assert surprise.see(0.02)
