"""Carries out training runs side by side on Ray: on this machine without set-up, or on a cluster.

One run is one Ray task on one processor core. What it writes stays on this machine: a run on a cluster works in a
temporary folder, which goes there and comes back as data, so that the nodes need no shared file system.
"""

import io
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch

from spiking_controller.errors import ConfigError, SpikingControllerError
from spiking_controller.evaluation.evaluate import evaluate_checkpoint
from spiking_controller.networks.checkpoint import load_checkpoint
from spiking_controller.networks.config import TrainingConfig
from spiking_controller.training.training_run import STATE_FILE, TrainingRun

_OBJECT_STORE = 100 * 2**20
"""Memory for what tasks hand to each other, bytes; ours hand over next to nothing."""

_PATIENCE = {
    "gcs_rpc_server_reconnect_timeout_s": 3600,
    "grpc_client_keepalive_timeout_ms": 3_600_000,
    "grpc_keepalive_timeout_ms": 3_600_000,
    "health_check_failure_threshold": 1000,
    "worker_register_timeout_seconds": 600,
}
"""Ray takes a process for dead that does not answer for some seconds to a minute, which on a machine that is busy with
training a healthy one may. All processes are on this machine: one that has died is noticed by its closed socket."""

Status = Literal["finished", "failed", "interrupted"]
Task = TypeVar("Task")


class Outcome(NamedTuple):
    """What became of a run.

    Attributes:
        status: "finished"; "failed": it raised an error or its process died; "interrupted": stopped, to be continued.
        reason: of a failure, one line.
        figures: of the evaluation, nested as `evaluate_checkpoint` gives them, and the number of parameters.
        files: the run's folder as an archive, from a run on a cluster.
    """

    status: Status
    reason: str = ""
    figures: dict[str, Any] | None = None
    files: bytes | None = None


class Assignment(NamedTuple):
    """What a Ray task is told.

    Attributes:
        config: of the run.
        goals: held-out goals to measure the result on.
        folder: of the run, if it lies within the task's reach.
        files: otherwise the run's folder so far, as an archive.
    """

    config: TrainingConfig
    goals: int
    folder: Path | None
    files: bytes | None = None


def pack(folder: Path) -> bytes:
    """Every file below the folder, as an archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                writer.write(path, path.relative_to(folder))
    return archive.getvalue()


def unpack(files: bytes, folder: Path) -> None:
    """Make the folder hold what `pack` was given, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(files)) as reader:
        reader.extractall(folder)


def carry_out(assignment: Assignment) -> Outcome:
    """Train and evaluate; continue from the saved state if there is one. An error is an outcome, not an exception."""
    if assignment.folder is not None:
        return _train(assignment.config, assignment.goals, assignment.folder)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        if assignment.files is not None:
            unpack(assignment.files, folder)
        outcome = _train(assignment.config, assignment.goals, folder)
        return outcome._replace(files=pack(folder))


def _train(config: TrainingConfig, goals: int, folder: Path) -> Outcome:
    torch.set_num_threads(1)
    resume = (folder / STATE_FILE).is_file()
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    with _stop_on_interrupt() as stop:
        try:
            training = TrainingRun(config, folder, resume=resume)
            training.run(lambda progress: None, stop.is_set)
            if training.iteration < config.iterations:
                return Outcome("interrupted")
            checkpoint = load_checkpoint(training.checkpoint)
            figures = evaluate_checkpoint(checkpoint, goals=goals)
        except Exception as error:  # whatever stops a run is its result, and must not stop the study
            return _failure(error)
    networks = (checkpoint.policy, checkpoint.forward_model)
    parameters = sum(parameter.numel() for network in networks for parameter in network.parameters())
    return Outcome("finished", figures={"parameters": parameters, **figures})


def _failure(error: BaseException) -> Outcome:
    return Outcome("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Set the event at an interrupt, which is how Ray cancels a task, instead of breaking off in the middle."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def connected(address: str | None, jobs: int | None) -> Iterator[int]:
    """Start Ray on this machine, or join a cluster; gives the number of runs that may go on side by side.

    On this machine Ray listens on the loopback interface only and sends no usage statistics. A cluster needs this
    package on every node.

    Args:
        address: of a cluster, host:port; None for this machine.
        jobs: runs side by side; None for as many as there are processor cores.
    Raises:
        ConfigError: there is no cluster at the address.
        SpikingControllerError: Ray did not start.
    """
    if address is None:
        # Ray reads it when it is first imported. In spite of its name it holds for every system: when off, Ray takes
        # the loopback address for its own and binds every port to it.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        address = "local"
        options.update(
            num_cpus=jobs, object_store_memory=_OBJECT_STORE, include_dashboard=False, _system_config=_PATIENCE
        )
    else:
        _check_that_somebody_listens(address)
    try:
        ray.init(address, **options)
    except Exception as error:  # Ray raises a bare one when its processes do not come up in time
        raise SpikingControllerError(
            f"Ray did not start ({' '.join(str(error).split())}); if the machine is busy, try again when it is less so."
        ) from error
    try:
        yield jobs or int(ray.cluster_resources()["CPU"])
    finally:
        ray.shutdown()


def _check_that_somebody_listens(address: str) -> None:
    """Ray itself would go on trying for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--address {address}: no Ray cluster answers there ({error}); give the host and port that "
            "`ray start --head` shows, or leave --address out."
        ) from None


def schedule(
    function: Callable[[Task], Outcome], tasks: Iterable[Task], jobs: int, should_stop: Callable[[], bool]
) -> Iterator[tuple[int, Outcome]]:
    """Call the function for every task on Ray, `jobs` at a time, in order; to be used within `connected`.

    Once `should_stop` says so no further task is started, and those that run are interrupted.

    Args:
        function: called with one task, in another process.
        tasks: what to call it with; asked for one when there is room for it.
        jobs: calls side by side.
        should_stop: asked about once a second.
    Yields:
        The index of a task and its outcome, as they come in; of a process that died, an outcome that says so.
    """
    import ray

    remote = ray.remote(num_cpus=1, max_retries=0)(function)
    waiting = enumerate(tasks)
    running: dict[ray.ObjectRef, int] = {}
    stopping = False
    while True:
        while not stopping and len(running) < jobs and (following := next(waiting, None)):
            index, task = following
            running[remote.remote(task)] = index
        if not running:
            return
        ready, _ = ray.wait(list(running), timeout=1.0)
        for reference in ready:
            index = running.pop(reference)
            try:
                yield index, ray.get(reference)
            except ray.exceptions.TaskCancelledError:
                yield index, Outcome("interrupted")
            except ray.exceptions.RayTaskError as error:
                yield index, _failure(error.cause)
            except ray.exceptions.RayError as error:
                yield index, _failure(error)
        if should_stop() and not stopping:
            stopping = True
            for reference in running:
                ray.cancel(reference)
