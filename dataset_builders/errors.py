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


class CertificationError(DataError):
    """Two independent ways of finding the trained turns of a conversation disagree.

    Not a conversation to leave out: either would do for a mask, so none can be trusted,
    and a build has to stop.
    """


class MaskError(AgentTuningError, ValueError):
    """A chat template cannot render a conversation, or its turns cannot be located in it.

    Attributes:
        reason: Name under which a conversation left out for it is counted: "template"
            (refused or not locatable), "left_out" (the template shows only a part of the
            conversation), "tools" (not JSON of schemas), "tools_ignored" (not shown),
            "control_token" (spelt in a way that cannot be located) or "lone_surrogate".
    """

    def __init__(self, message: str, reason: str = "template") -> None:
        super().__init__(message)
        self.reason = reason


class EnvironmentFailureError(AgentTuningError, RuntimeError):
    """An environment broke; the fault lies with it, not with the acting model."""


class StorageError(AgentTuningError, OSError):
    """What was made cannot be written where it should go."""


class MissingExtraError(AgentTuningError, ImportError):
    """An optional dependency is not installed; the message gives the install line."""


class EndpointError(AgentTuningError, ConnectionError):
    """A model's endpoint refuses to work, or has been down for too long."""


class ClusterError(AgentTuningError, RuntimeError):
    """A cluster of machines cannot be reached, or has been lost."""


class EvaluatorError(AgentTuningError, RuntimeError):
    """An evaluator broke, on this process or on another one."""
