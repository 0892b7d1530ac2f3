"""Errors that a user can fix: each message is one sentence that names the value and the fix."""


class SpikingControllerError(ValueError):
    """Base of every error that the command line prints as a sentence instead of a traceback."""


class ConfigError(SpikingControllerError):
    """A configuration file, option or task name that does not exist or has a wrong value."""


class ModelContractError(SpikingControllerError):
    """A checkpoint that cannot be read, or that was trained for another robot or setting."""


class GoalError(SpikingControllerError):
    """A goal that the arm cannot or must not be sent to."""


class RobotModelError(SpikingControllerError):
    """A robot description that is unknown or lacks a joint, site or limit."""


class TrainingDivergedError(SpikingControllerError):
    """A training run that found something wrong with itself and was configured to stop."""


class SimulationStoppedError(SpikingControllerError):
    """The process that simulates training episodes was ended from outside."""
