"""What inlay raises when something outside it is wrong: the user's input, files or data.

Each carries one message that names the file or key, the value, and what is allowed. The command line prints
the message without a traceback and exits with 2.
"""

from collections.abc import Sequence


class InlayError(Exception):
    """Parent of every error that a user can mend."""

    def __init__(self, message: str, mistakes: Sequence[str] = ()):
        """Say what is wrong: in a message, and where that lists several mistakes, each by itself too."""
        super().__init__(message)
        self.mistakes = tuple(mistakes) or (message,)


class ConfigError(InlayError):
    """A run file, an override or a combination of settings is wrong."""


class TargetError(InlayError):
    """A method was pointed at modules, ranks or positions that the base does not have."""


class ArtifactError(InlayError):
    """A file cannot be written or read, or belongs to another base."""


class DataError(InlayError):
    """Pictures or captions are missing or broken."""


class TrainingError(InlayError):
    """Training cannot go on, for instance because the loss is not finite."""
