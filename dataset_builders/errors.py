"""Errors a user can mend, shown as one line by the command line.

Every class is also the standard-library type a caller would catch without
knowing this package.
"""

from __future__ import annotations


class AgentTuningError(Exception):
    """Root of all errors that this project raises on purpose."""


class ConfigError(AgentTuningError, ValueError):
    """A setting, or a combination of settings, cannot work."""


class DataError(AgentTuningError, ValueError):
    """A file or a record is not what its format promises."""


class SourceNotFoundError(AgentTuningError, FileNotFoundError):
    """A data source names no file, folder or hub dataset that can be read."""


class MaskError(AgentTuningError, ValueError):
    """A chat template cannot render a conversation, or its turns cannot be located in it."""


class EnvironmentFailureError(AgentTuningError, RuntimeError):
    """An environment broke; the fault lies with it, not with the acting model."""


class StorageError(AgentTuningError, OSError):
    """What was made cannot be written where it should go."""


class MissingExtraError(AgentTuningError, ImportError):
    """An optional dependency is not installed; the message gives the install line."""
