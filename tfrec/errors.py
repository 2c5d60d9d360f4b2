"""The errors a user can mend, and the one warning class."""


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a column, an option, a folder.

    The message says what was expected, what came and how to mend it. Commands print it without a traceback
    and exit with status 2.
    """

    #: AutoGraph leaves it as it is; else a `tf.function` would turn it into a StagingError.
    ag_pass_through = True


class TfrecWarning(UserWarning):
    """Work goes on, but not the way that was asked for. Shown once."""
