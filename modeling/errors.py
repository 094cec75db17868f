"""The errors a user of psreid can meet, as one tree.

    PsreidError
    ├── ConfigError    a setting is unknown, missing or contradicts another        exit code 2
    ├── DataError      an input file, row or table cannot be used as it is         exit code 2
    ├── WeightsError   a checkpoint is missing, malformed or does not fit          exit code 2
    ├── StorageError   a path or bucket cannot be reached, read or written         exit code 2
    └── JobError       the job itself failed (too much quarantined, a dead worker) exit code 1

Every message says what was wrong, the value that was got, the values allowed, and what to do. Each class takes
exactly one string, so that every error pickles across processes.
"""


class PsreidError(Exception):
    """Any error that psreid raises on purpose; its text is written for the person who runs the command."""

    exit_code = 1


class ConfigError(PsreidError):
    """A setting is unknown, missing, out of range, or contradicts another setting."""

    exit_code = 2


class DataError(PsreidError):
    """An input file, row or table cannot be used as it is."""

    exit_code = 2


class WeightsError(PsreidError):
    """A checkpoint is missing, malformed, unsafe to load, or does not fit the model."""

    exit_code = 2


class StorageError(PsreidError):
    """A folder or bucket cannot be reached, read or written."""

    exit_code = 2


class JobError(PsreidError):
    """The job ran and failed: its inputs were good, its run was not."""
