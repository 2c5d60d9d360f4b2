"""The errors a user can correct, those of several ranks, and the one warning class."""


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a column, an option, a folder.

    The message names what was expected, what came and how to correct it. Commands print it without a traceback
    and exit with status 2.
    """

    #: AutoGraph leaves it as it is; else a `tf.function` would turn it into a StagingError.
    ag_pass_through = True


class SharedError(InputError):
    """An error that every rank raises at the same place with the same message; rank 0 prints it."""


class RankLostError(RuntimeError):
    """Another rank has ended, or does not answer, so this one cannot continue.

    Args:
        message: what is known.
        told: the other rank prints what is wrong, so that this one need not.
    """

    def __init__(self, message: str, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class TfrecWarning(UserWarning):
    """Work continues, but not in the way that was asked for. Shown once."""
