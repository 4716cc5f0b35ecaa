"""What Spark's workers couldn't do is told to be passing or lasting by the words of it."""

import botocore.exceptions
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.errors import TerminalError, TransientError
from spark_jobs.failures import spoken

PASSING = [
    botocore.exceptions.FlexibleChecksumError(error_msg="Expected checksum x did not match calculated checksum: y"),
    botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://s3"),
    botocore.exceptions.ConnectTimeoutError(endpoint_url="http://s3"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://s3"),
    botocore.exceptions.ConnectionClosedError(endpoint_url="http://s3"),
    botocore.exceptions.ResponseStreamingError(error="reset"),
]
LASTING = [
    ValueError("x"),
    botocore.exceptions.NoCredentialsError(),
    botocore.exceptions.ParamValidationError(report=""),
]


@pytest.mark.parametrize(
    ("error", "kind"),
    [*((error, TransientError) for error in PASSING), *((error, TerminalError) for error in LASTING)],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else one.__name__,
)
def test_an_error_of_a_worker_is_told_by_whether_it_passes(spark, error, kind):
    def fail(_):
        raise error

    with pytest.raises(kind, match=r"^looking: ") as caught, spoken("looking"):
        spark.sparkContext.parallelize([1], 1).foreach(fail)
    assert type(caught.value) is kind


def test_a_pattern_that_java_refuses_is_lasting_whatever_else_went_wrong_for_it(spark):
    rows = spark.range(3).select(F.col("id").cast("string").alias("text"))
    with pytest.raises(TerminalError, match="PatternSyntaxException: Illegal repetition"), spoken("looking"):
        rows.where(F.col("text").rlike("{.*}")).collect()
    told = "Job aborted: Connection reset\nCaused by: java.util.regex.PatternSyntaxException: Illegal repetition\n{.*}"
    with pytest.raises(TerminalError, match="Illegal repetition"), spoken("looking"):
        raise PySparkException(told)
