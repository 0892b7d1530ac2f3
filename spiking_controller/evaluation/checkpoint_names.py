"""Names that tell several checkpoints apart, and the task that they share."""

from collections.abc import Sequence

from spiking_controller.errors import ConfigError
from spiking_controller.evaluation.comparison import _ARCHITECTURES
from spiking_controller.networks.checkpoint import Checkpoint
from spiking_controller.networks.features import architecture_of


def column_names(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """A name for each: its architectures, and the seed and a number where these do not tell them apart."""

    def architectures(checkpoint: Checkpoint) -> str:
        config = checkpoint.config
        model, policy = (_ARCHITECTURES[architecture_of(part)] for part in (config.forward_model, config.policy))
        return policy if model == policy else f"{model} model, {policy} policy"

    names = [architectures(checkpoint) for checkpoint in checkpoints]
    names = [
        f"{name}, seed {checkpoint.config.seed}" if names.count(name) > 1 else name
        for name, checkpoint in zip(names, checkpoints, strict=True)
    ]
    return [
        f"{name} ({names[:index].count(name) + 1})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def common_task(checkpoints: Sequence[Checkpoint]) -> str:
    """Name of the task that all were trained for.

    Raises:
        ConfigError: they were trained for different ones.
    """
    first = checkpoints[0]
    for checkpoint in checkpoints:
        if checkpoint.task.name != first.task.name:
            raise ConfigError(
                f"{checkpoint.source} is for task '{checkpoint.task.name}', but {first.source} is for "
                f"'{first.task.name}'; compare checkpoints of one task."
            )
    return first.task.name
