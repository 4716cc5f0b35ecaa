"""What a commit that failed in Iceberg is taken for, by what it says."""

import pytest
from py4j.protocol import Py4JError

from spark_jobs.failures import Conflict, conflict_of

ICEBERG = "An error occurred while calling o77.commit.\n: org.apache.iceberg.exceptions."
OVERTAKEN = "CommitFailedException: Cannot commit glue_catalog.db.t because base metadata location is not same"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (f"{ICEBERG}{OVERTAKEN}", Conflict("CommitFailedException")),
        (
            f"{ICEBERG}ValidationException: Missing required files to delete: s3://b/f.parquet",
            Conflict("ValidationException"),
        ),
        (
            "org.apache.spark.SparkException: java.lang.IllegalArgumentException: arraySize cannot be negative: -1",
            Conflict("arraySize cannot be negative"),
        ),
        (
            f"{ICEBERG}CommitStateUnknownException: Cannot determine whether it was committed\nCaused by: {OVERTAKEN}",
            Conflict("CommitStateUnknownException", is_unknown=True),
        ),
        (f"{ICEBERG}NotFoundException: Location does not exist: s3://b/m.avro", None),
        ("An error occurred while calling o77.commit.\n: java.lang.OutOfMemoryError: Java heap space", None),
    ],
)
def test_a_failure_tells_whether_another_writer_came_between(said, expected):
    assert conflict_of(Py4JError(said)) == expected
