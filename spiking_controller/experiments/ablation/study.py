"""What an ablation study is: a default training run, and variants of it that differ in one factor each.

A study file (config/ablation/*.yaml) names a base configuration, what all runs change about it, and the factors. Every
variant is a nested mapping of keys of the training configuration, merged into the default's.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from spiking_controller.errors import ConfigError
from spiking_controller.networks.config import (
    TrainingConfig,
    config_from_dict,
    from_plain,
    load_config,
    merged,
    read_config,
    read_mapping,
)

DEFAULT = "default"
"""Factor and variant of the runs that change nothing; every factor is compared to them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class FactorFile:
    """A factor as it stands in a study file.

    Attributes:
        question: what the factor asks, one sentence.
        default: what the default is called in this factor.
        variants: by name, what each changes about the default.
    """

    question: str
    default: str
    variants: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class StudyFile:
    """A study file.

    Attributes:
        base: training configuration, a path relative to the study file.
        factors: by name.
        common: what all runs change about the base.
        goals: held-out goals on which every finished run is measured.
    """

    base: str
    factors: dict[str, FactorFile]
    common: dict[str, Any] = field(default_factory=dict)
    goals: int = 200


class Run(NamedTuple):
    """One training run of a study."""

    factor: str
    variant: str
    seed: int
    config: TrainingConfig

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.factor}/{self.variant}, seed {self.seed}"


@dataclass(frozen=True)
class Factor:
    """One factor of a study: its name, question, what the default is called in it, and its variants by name."""

    name: str
    question: str
    default: str
    variants: dict[str, TrainingConfig]


@dataclass(frozen=True)
class Study:
    """A study that has been read and checked.

    Attributes:
        name: of the file, without ending.
        default: the configuration that variants are compared to.
        factors: in the file's order.
        goals: held-out goals on which every finished run is measured.
    """

    name: str
    default: TrainingConfig
    factors: tuple[Factor, ...]
    goals: int

    def runs(self, seeds: int) -> list[Run]:
        """Every run with the seeds 1 to `seeds`, seed by seed, so that a study that is cut short is still balanced."""
        variants = [(DEFAULT, DEFAULT, self.default)]
        variants += [(factor.name, name, config) for factor in self.factors for name, config in factor.variants.items()]
        return [
            Run(factor, variant, seed, replace(config, seed=seed))
            for seed in range(1, seeds + 1)
            for factor, variant, config in variants
        ]


def load_study(path: Path) -> Study:
    """Read a study file and every configuration that it asks for.

    Raises:
        ConfigError: the file or its base cannot be read, or a key, value or name in it is wrong; names file and key.
    """
    known = "spiking_controller/experiments/ablation/study.py and in config/ablation/*.yaml"
    content = from_plain(StudyFile, read_mapping(path), str(path), known)
    if content.goals < 1:
        raise ConfigError(f"{path}: goals = {content.goals} must be at least 1.")
    if not content.factors:
        raise ConfigError(f"{path}: factors: is empty; name at least one.")
    base = path.parent / content.base
    load_config(base)
    values = merged(read_config(base), content.common)
    default = config_from_dict(values, f"{path}: common")
    factors = []
    for name, factor in content.factors.items():
        source = f"{path}: factors.{name}"
        for label in (name, factor.default, *factor.variants):
            if not _NAME.fullmatch(label):
                raise ConfigError(f"{source}: the name '{label}' must be of letters, digits and _ . - only.")
        if name == DEFAULT:
            raise ConfigError(f"{source}: '{DEFAULT}' means the runs that change nothing; choose another name.")
        if not factor.variants or factor.default in factor.variants:
            raise ConfigError(f"{source}.variants: name at least one, and none like the default '{factor.default}'.")
        variants = {}
        for variant, changes in factor.variants.items():
            config = config_from_dict(merged(values, changes), f"{source}.variants.{variant}")
            if replace(config, seed=default.seed) == default:
                raise ConfigError(f"{source}.variants.{variant}: changes nothing about the default; leave it out.")
            variants[variant] = config
        factors.append(Factor(name, factor.question, factor.default, variants))
    return Study(path.stem, default, tuple(factors), content.goals)
