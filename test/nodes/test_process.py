"""What a node's process does about its priority, its memory and its end."""

import gc
import os
import signal
import threading
from typing import Any

import pytest
import rclpy

from spiking_controller.nodes.common.process import keep_from_garbage_collector, run_process, step_back


def test_a_thread_steps_back_alone() -> None:
    before, seen = os.getpriority(os.PRIO_PROCESS, 0), []

    def work() -> None:
        step_back(3)
        seen.append((os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(min(before + 3, 19), os.SCHED_OTHER)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_what_is_left_of_the_set_up_is_not_looked_at_again() -> None:
    keep_from_garbage_collector()
    try:
        assert gc.get_freeze_count() > 1000
        assert len(gc.get_objects()) < 1000
    finally:
        gc.unfreeze()


def test_a_second_signal_does_not_break_the_end_off(monkeypatch: pytest.MonkeyPatch) -> None:
    leave, handlers = rclpy.try_shutdown, list[Any]()

    def watched() -> None:
        handlers.append(signal.getsignal(signal.SIGTERM))
        leave()

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(rclpy, "try_shutdown", watched)
    assert run_process(lambda stop: 3, []) == 3
    assert handlers not in ([before], [signal.SIG_DFL])
    assert signal.getsignal(signal.SIGTERM) == before
