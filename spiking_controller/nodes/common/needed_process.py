"""Lets `ros2 launch` fail when a process ends that the launch cannot do without."""

from typing import Any


def fail_launch(event: Any, context: Any) -> None:
    """An `on_exit` of a launch file: a process that ends by itself ends the launch, with exit code 1.

    An exception in a handler is what gives a launch service that exit code; after a `Shutdown` action it is 0.

    Args:
        event: launch.events.process.ProcessExited.
        context: launch.LaunchContext.
    Raises:
        RuntimeError: the process ended before anyone asked the launch to.
    """
    if not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended by itself with exit code {event.returncode}")
