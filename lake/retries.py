"""Owns how long PyIceberg, which reads S3 by pyarrow, asks again; a module of its own as PyIceberg loads it by name."""

from pyarrow.fs import AwsStandardS3RetryStrategy

__all__ = ["PatientRetries"]

_ATTEMPTS = 6  # with AWS's pauses about a quarter of a minute


class PatientRetries(AwsStandardS3RetryStrategy):  # type: ignore[misc]
    """More attempts than pyarrow's three, which are over after two seconds of SlowDown."""

    def __init__(self) -> None:
        super().__init__(max_attempts=_ATTEMPTS)
