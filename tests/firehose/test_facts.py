"""Each recorded fact of the service is a test, or is listed as not done, and why.

The facts' file is kept outside of the repository; where it isn't there, only the comparison with it is left out.
"""

# ruff: noqa: E501, RUF001 - a fact and its test are one line, and the words are the file's own

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT.parent / "shared" / "facts" / "firehose-behaviour.md"
NOT_OURS = (
    "What other local implementations lack",
    "What producers' users complain about elsewhere",
    "What engineers ask about Spark and Iceberg at the lake end",
)
"""Sections that aren't about what the service does."""


class NotDone(str):
    """Why a fact has no test."""

    __slots__ = ()


# a fact's own words, shortened, and the test that holds it: file::name below tests/firehose
FACTS: dict[str, str | NotDone] = {
    # Put API
    "JSON 1.1": "test_server_api.py::test_an_operation_that_is_not_known_is_refused",
    "1–500 records": "test_server_api.py::test_a_batch_of_501_records_is_refused",
    "`PutRecord` answers": "test_model.py::test_every_answer_has_the_shape_of_the_model",
    "the batch `{FailedPutCount": "test_server_api.py::test_each_record_gets_an_id_of_its_own",
    "Per-record codes are": "test_throttling.py::test_a_batch_above_the_bytes_a_second_is_taken_in_part",
    "one failed record does not stop": "test_faults.py::test_records_fail_by_themselves_and_the_others_arrive",
    "Errors of the call": "test_model.py::test_every_documented_error_is_reached_or_said_why_not",
    "`LimitExceededException` belongs": "test_update.py::test_tags_are_set_replaced_taken_away_and_listed_page_by_page",
    "An oversize record": "test_server_api.py::test_a_record_that_is_too_long_fails_the_call",
    "An oversize batch": "test_server_api.py::test_a_batch_over_4_mib_is_refused",
    "500,000 records/s": "test_throttling.py::test_a_region_says_what_a_stream_takes",
    "100,000 / 1,000": "test_throttling.py::test_a_region_says_what_a_stream_takes",
    "Above them: throttling": "test_throttling.py::test_above_the_requests_a_second_calls_are_refused_and_counted",
    "Stream names": "test_validation.py::test_a_constraint_that_is_not_met_is_a_validation_error",
    # Buffering
    "SizeInMBs 1–128": "test_streams.py::test_defaults_are_the_services",
    "both or neither": "test_streams.py::test_a_destination_that_makes_no_sense_is_refused",
    "Size counts before compression": "test_buffers.py::test_a_buffer_is_full_when_its_records_and_delimiters_reach_the_size",
    "explicit size at least 64": "test_conversion_config.py::test_a_conversion_that_makes_no_sense_is_refused",
    "no zero buffering": "test_streams.py::test_dynamic_partitioning_that_makes_no_sense_is_refused",
    "delay may reach 1.5 x": NotDone("an upper bound that the service allows itself; the server keeps the hint"),
    "64 MiB minimum with DP": NotDone("sources disagree, and no text of AWS's says it; the server takes 1 to 128"),
    "not found in AWS text": NotDone("the same sentence"),
    "raises the buffer size itself": NotDone("the server keeps the size; memory is bounded by --max-pending-mib"),
    "discards pending records": "test_server_delivery.py::test_a_deleted_stream_takes_its_pending_records_along",
    # Dynamic partitioning
    "S3 only, at create only": "test_comparison.py::test_what_the_service_never_switches_is_not_changed_in_place",
    "Needs Prefix": "test_streams.py::test_dynamic_partitioning_that_makes_no_sense_is_refused",
    "Processor types:": "test_makers.py::test_makers_are_known_in_the_order_the_service_applies_them",
    "parameters: `LambdaArn": "test_makers.py::test_parameters_make_a_processor",
    "Order: de-aggregation": "test_server_processing.py::test_records_that_are_being_made_when_the_server_is_killed_arrive_once",
    "at most 500 sub-records": "test_deaggregation.py::test_500_records_are_taken_and_501_refused",
    '`{"a":1}{"a":2}`': "test_deaggregation.py::test_objects_that_follow_one_another_are_records",
    "the delimiter parameter is base64": "test_makers.py::test_wrong_parameters_are_told_with_what_is_allowed",
    "De-aggregation strips newlines": "test_deaggregation.py::test_whatever_objects_are_put_together_come_apart_as_they_were",
    "needs Decompression": "test_makers.py::test_extraction_of_messages_needs_decompression",
    "Undecompressible records": "test_decompression.py::test_what_cannot_be_unpacked_goes_to_the_errors_as_it_came",
    "later failures are stored": "test_decompression.py::test_what_fails_later_is_stored_as_it_came",
    "Active partitions: 500": "test_server_api.py::test_the_quota_is_found_by_its_name_and_raised_up_to_5000",
    "`activePartitionExceeded`": "test_server_delivery.py::test_records_above_the_quota_of_partitions_go_to_the_error_prefix",
    "ActivePartitionsLimitExceeded": "test_explain.py::test_a_partition_above_the_quota_is_refused",
    "partitionKeys values must not be null": "test_extraction.py::test_a_key_that_is_missing_null_or_empty_is_refused",
    "An empty string fails too": "test_extraction.py::test_an_empty_string_is_not_rescued_by_an_alternative",
    "the `error-output-type` value of this case": "test_server_delivery.py::test_a_refused_record_is_under_the_error_prefix_with_its_raw_data",
    "DurationInSeconds 0–7200": "test_model.py::test_a_retry_of_dynamic_partitioning_has_the_models_range",
    # Prefixes
    "arrival time of the OLDEST": "test_prefixes.py::test_a_prefix_is_evaluated_at_the_arrival_of_the_oldest_record",
    "all instances share that instant": "test_prefixes.py::test_a_prefix_is_evaluated_at_the_arrival_of_the_oldest_record",
    "quotes are literal": "test_prefixes.py::test_a_prefix_is_evaluated_at_the_arrival_of_the_oldest_record",
    "UTC unless `CustomTimeZone`": "test_explain.py::test_a_plain_stream_goes_by_the_time_in_its_zone",
    "11 characters, fresh": "test_prefixes.py::test_each_random_string_is_fresh",
    "`format-conversion-failed`, the destinations'": "test_prefixes.py::test_the_kind_of_error_is_put_in",
    "evaluated at most 512": "test_prefixes.py::test_a_key_that_s3_would_not_take_is_told",
    "Prefix may not hold": "test_streams.py::test_a_destination_that_makes_no_sense_is_refused",
    "an ErrorOutputPrefix with any expression": "test_streams.py::test_dynamic_partitioning_that_makes_no_sense_is_refused",
    "ErrorOutputPrefix may be missing": "test_streams.py::test_a_destination_that_makes_no_sense_is_refused",
    "The default `yyyy/MM/dd/HH/` suffix": "test_prefixes.py::test_a_prefix_is_evaluated_at_the_arrival_of_the_oldest_record",
    "literal concatenation with no slash": "test_prefixes.py::test_a_prefix_is_evaluated_at_the_arrival_of_the_oldest_record",
    "observed is the default": "test_prefixes.py::test_a_prefix_is_evaluated_at_the_arrival_of_the_oldest_record",
    # Objects
    "Key: `<prefix><stream>": "test_prefixes.py::test_an_object_is_named_after_stream_version_time_and_id",
    "the version starts at 1": "test_update.py::test_what_was_buffered_is_delivered_as_it_was_and_what_comes_later_as_it_is_now",
    "concatenated with no separator": "test_server_delivery.py::test_records_of_a_plain_stream_are_concatenated_without_a_separator",
    "Content-Type `application/octet-stream`": "test_containers.py::test_the_server_delivers_every_compression",
    "FileExtension (": "test_containers.py::test_a_file_extension_replaces_that_of_a_compression",
    "| Format | suffix": "test_objects.py::test_each_compression_has_its_extension_and_content_encoding",
    "| GZIP |": "test_containers.py::test_gzip_is_read_back",
    "| ZIP |": "test_objects.py::test_a_zips_entry_is_named_by_a_uuid_that_is_not_the_objects",
    "| Snappy |": "test_containers.py::test_a_snappy_stream_is_read_back_by_snappy_java",
    "| HADOOP_SNAPPY |": "test_containers.py::test_hadoop_snappy_is_read_back_by_hadoops_codec",
    "| Parquet |": "test_conversion_config.py::test_a_stream_that_converts_has_its_own_size_extension_and_label",
    "A bad enum": "test_validation.py::test_a_constraint_that_is_not_met_is_a_validation_error",
    # Lambda transform
    "Request `{invocationId": "test_lambda_transform.py::test_the_event_has_the_services_shape",
    "response records": "test_lambda_transform.py::test_records_are_dropped_failed_and_made_each_by_itself",
    "Buffer 0.2–3 MB": "test_makers.py::test_wrong_parameters_are_told_with_what_is_allowed",
    "6 MB payload": "test_lambda_transform.py::test_a_batch_too_large_for_an_invocation_becomes_several",
    "then the batch is failed": "test_lambda_transform.py::test_a_function_that_raises_is_tried_again_and_then_each_record_has_failed",
    "Failed records, under": "test_server_processing.py::test_a_function_transforms_drops_and_fails_records_and_gives_partition_keys",
    "Codes: `Lambda.MissingRecordId": "test_lambda_transform.py::test_whatever_a_function_answers_each_record_has_a_verdict",
    "REPLACES ProcessingConfiguration": "test_update.py::test_processing_is_replaced_as_a_whole_and_off_where_it_is_not_on",
    # Format conversion
    "Concatenated JSON is valid input": "test_serdes.py::test_each_document_of_a_record_is_a_row",
    "OpenX timestamps": "test_serdes.py::test_openx_makes_of_a_value_what_the_column_needs",
    "`+00:00` offset fails": "test_serdes.py::test_openx_refuses_what_does_not_fit",
    "Hive SerDe": "test_serdes.py::test_hives_deserializer_tries_its_timestamp_formats_and_then_its_own",
    "Failure record: `{attemptsMade": "test_server_conversion.py::test_records_are_delivered_as_columns_and_those_that_do_not_fit_as_errors",
    "codes `DataFormatConversion": "test_server_conversion.py::test_records_are_delivered_as_columns_and_those_that_do_not_fit_as_errors",
    # Delivery
    "At least once": "test_server_crash.py::test_every_acknowledged_record_arrives_once_when_the_server_is_killed_while_putting",
    "retried for 24 h": NotDone("the server tries for ever, and loses nothing: test_engine.py holds that"),
    "S3BackupMode can be enabled later": "test_update.py::test_a_backup_is_enabled_later_and_not_disabled_again",
    "CloudWatch (namespace AWS/Firehose)": "test_metrics.py::test_cloudwatch_is_told_under_the_documented_names",
}


def facts(text):
    """The sentences of the sections that are about the service, and rows of their tables."""
    found = []
    for section in text.split("\n## ")[1:]:
        name, _, body = section.partition("\n")
        if name.startswith(NOT_OURS):
            continue
        for piece in re.split(r"\n(?=- |\|)", body):
            line = " ".join(piece.split()).removeprefix("- ")
            found += re.split(r"(?<=\.)\s+(?=[A-Z`!?])|;\s+", line)
    return [one for one in found if re.search(r"\w", one)]


def test_every_test_that_a_fact_is_held_by_is_there():
    named = {one for one in FACTS.values() if not isinstance(one, NotDone)}
    files = sorted({one.partition("::")[0] for one in named})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider", *files],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    collected = {line.partition("[")[0].rpartition("/")[2] for line in done.stdout.splitlines() if "::" in line}
    assert named - collected == set()


@pytest.mark.skipif(not FILE.is_file(), reason=f"there is no {FILE}")
def test_every_fact_is_a_test_or_is_said_not_to_be_done():
    known = facts(FILE.read_text(encoding="utf-8"))
    whole = "\n".join(known)
    assert [words for words in FACTS if words not in whole] == []
    # a table's rule, and what only begins or ends a sentence cut by a semicolon
    left = [one for one in known if not any(words in one for words in FACTS) and len(one.split()) > 3]
    assert left == []
