"""Errors that a user can fix, shown as one line by the command line.

Every class is also the standard-library type a caller would catch without
knowing this package.
"""

from __future__ import annotations


class AgentTuningError(Exception):
    """Base class of all errors that this project raises on purpose."""


class ConfigError(AgentTuningError, ValueError):
    """A setting, or a combination of settings, is invalid."""


class DataError(AgentTuningError, ValueError):
    """A file or a record does not follow its format."""


class SourceNotFoundError(AgentTuningError, FileNotFoundError):
    """A source is not an existing file, folder or hub dataset."""


class CertificationError(DataError):
    """Two independent methods locate different trained turns in a conversation.

    The conversation is not simply dropped: the disagreement means that no mask of this template can
    be trusted, so a build must stop.
    """


class MaskError(AgentTuningError, ValueError):
    """A chat template cannot render a conversation, or its turns cannot be located in it.

    Attributes:
        reason: Name under which a dropped conversation is counted: "template" (rejected or not
            locatable), "left_out" (the template omits a part of the conversation), "tools" (not
            JSON of schemas), "tools_ignored" (not shown), "control_token" (in a form that cannot be
            located) or "lone_surrogate".
    """

    def __init__(self, message: str, reason: str = "template") -> None:
        super().__init__(message)
        self.reason = reason


class EnvironmentFailureError(AgentTuningError, RuntimeError):
    """An environment failed; not caused by the acting model."""


class StorageError(AgentTuningError, OSError):
    """Output cannot be written to its destination."""


class DownloadError(AgentTuningError, ConnectionError):
    """A file cannot be fetched, or is not the published one."""


class MissingExtraError(AgentTuningError, ImportError):
    """An optional dependency is not installed; the message has the install command."""


class EndpointError(AgentTuningError, ConnectionError):
    """A model endpoint refuses to work, or has been down for too long."""


class ClusterError(AgentTuningError, RuntimeError):
    """A Ray cluster cannot be reached, or was lost."""


class EvaluatorError(AgentTuningError, RuntimeError):
    """An evaluator failed, on this process or on another one."""
