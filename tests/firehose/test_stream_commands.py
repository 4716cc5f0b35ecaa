"""`lakehose streams`, as a person runs it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lakehose.cli import main

ROOT = Path(__file__).parents[2]
S3 = "ExtendedS3DestinationConfiguration"
EVENT = '{"tenant":"ewr","event_time":"2013-05-07T10:00:00Z"}'


@dataclass
class Run:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def streams(tmp_path, monkeypatch, capfd):
    """Run `lakehose streams …` in an empty folder, in this process: one that starts takes seconds to load its rooms."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)

    def run(*arguments, given="", options=()):
        monkeypatch.setattr(sys, "argv", ["lakehose", *map(str, options), "streams", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Run(int(ended.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def write(tmp_path):
    """Write a file; answers its name."""

    def write(name, content):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return name

    return write


@pytest.fixture
def destination(offline_bucket):
    """A destination that nothing can be said against."""
    log = {"Enabled": True, "LogGroupName": "/aws/kinesisfirehose/clicks", "LogStreamName": "d"}
    return offline_bucket.partitioned(CloudWatchLoggingOptions=log)


def of(destination, **members):
    return {"DeliveryStreamName": "clicks", S3: destination, **members}


def without(destination, *names):
    return {name: value for name, value in destination.items() if name not in names}


def test_the_declared_streams_are_valid(streams):
    run = streams("validate", options=("--lake", ROOT / "lake.yaml"))
    assert (run.returncode, run.stdout) == (
        0,
        f"acme-demo-flights-ewr ({ROOT}/lake.yaml): valid\nacme-demo-flights-pooled ({ROOT}/lake.yaml): valid\n",
    )


def test_dynamic_partitioning_without_processing_is_told_with_what_to_put_in(streams, write, destination):
    run = streams("validate", write("s.json", of(without(destination, "ProcessingConfiguration"))))
    assert run.returncode == 1
    assert (
        run.stdout
        == f"""\
clicks (s.json): 1 error
  error   {S3}.ProcessingConfiguration
          Dynamic partitioning needs a MetadataExtraction processor to take partition keys from
          given: nothing
          put in:
            "ProcessingConfiguration": {{
              "Enabled": true,
              "Processors": [
                {{
                  "Type": "MetadataExtraction",
                  "Parameters": [
                    {{"ParameterName": "MetadataExtractionQuery", "ParameterValue": "{{day: .day, tenant: .tenant}}"}},
                    {{"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"}}
                  ]
                }},
                {{
                  "Type": "AppendDelimiterToRecord",
                  "Parameters": [{{"ParameterName": "Delimiter", "ParameterValue": "\\\\n"}}]
                }}
              ]
            }}
"""
    )


def test_what_is_told_to_be_put_in_is_valid_when_it_is_there(streams, write, destination):
    broken = without(destination, "ProcessingConfiguration", "ErrorOutputPrefix", "CloudWatchLoggingOptions")
    broken |= {"Prefix": "data", "BufferingHints": {"SizeInMBs": 5}}
    for _ in range(3):
        found = json.loads(streams("validate", write("s.json", of(broken)), "--json").stdout)[0]["findings"]
        if not found:
            break
        for one in reversed(found):
            broken |= one["putIn"]
    assert found == []
    assert broken["Prefix"] == "data/tenant=!{partitionKeyFromQuery:tenant}/"


def test_all_errors_are_told_and_not_the_first_only(streams, destination):
    members = {
        "BucketARN": "my-bucket",
        "BufferingHints": {"SizeInMBs": "5", "IntervalInSeconds": 901},
        "Prefix": "t=!{partitionKeyFromQuery:tenat}/!{timestamp:QQQQQQQ}/",
        "CompressionFormat": "gzip",
        "CustomTimeZone": "Mars/Olympus",
        "DynamicPartitionConfiguration": {},
    }
    request = of({**without(destination, "RoleARN"), **members}, DeliveryStreamName="no spaces")
    run = streams("validate", "-", "--json", given=json.dumps(request))
    assert run.returncode == 1
    (found,) = json.loads(run.stdout)
    assert (found["stream"], found["source"], found["valid"]) == ("no spaces", "standard input", False)
    assert {one["kind"] for one in found["findings"]} == {"error"}
    most = " at most 5 are allowed"
    assert {one["where"].removeprefix(f"{S3}."): (one["given"], one["message"]) for one in found["findings"]} == {
        "DeliveryStreamName": ("no spaces", "It must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"),
        "RoleARN": (None, "It is needed"),
        "BucketARN": ("my-bucket", "It must satisfy regular expression pattern: arn:.*:s3:::[\\w\\.\\-]{1,255}"),
        "BufferingHints.SizeInMBs": ("5", "a integer is needed, not str"),
        "BufferingHints.IntervalInSeconds": (901, "It must have value less than or equal to 900"),
        "Prefix": (
            members["Prefix"],
            f"Prefix: prefix {members['Prefix']!r}: timestamp pattern {'Q' * 7!r}: 'Q' is repeated 7 times,{most}",
        ),
        "CompressionFormat": (
            "gzip",
            "got 'gzip', allowed are: GZIP, HADOOP_SNAPPY, Snappy, UNCOMPRESSED, ZIP",
        ),
        "CustomTimeZone": (
            "Mars/Olympus",
            "CustomTimeZone: got Mars/Olympus, a name of the tz database is needed, as in Europe/Berlin",
        ),
        "DynamicPartitionConfiguration": (
            {},
            next(
                one["message"]
                for one in found["findings"]
                if one["message"].endswith("did you mean 'DynamicPartitioningConfiguration'?")
            ),
        ),
    }


ADVICE = {
    "delimiter": ({"ProcessingConfiguration": {"Enabled": False}, "Prefix": "raw/"}, "ProcessingConfiguration"),
    "slash": ({"Prefix": "t=!{partitionKeyFromQuery:tenant}/d=!{partitionKeyFromQuery:day}"}, "Prefix"),
    "error prefix": ({"ErrorOutputPrefix": "processed/e/!{firehose:error-output-type}/"}, "ErrorOutputPrefix"),
    "small": ({"BufferingHints": {"SizeInMBs": 5, "IntervalInSeconds": 60}}, "BufferingHints.SizeInMBs"),
    "log": ({"CloudWatchLoggingOptions": None}, "CloudWatchLoggingOptions"),
}


@pytest.mark.parametrize("name", ADVICE)
def test_what_people_regret_is_advised_against_and_is_valid(streams, write, destination, name):
    members, where = ADVICE[name]
    if name == "delimiter":
        members = {**members, "DynamicPartitioningConfiguration": {"Enabled": False}}
    run = streams("validate", write("s.json", of({**destination, **members})), "--json")
    assert run.returncode == 0
    (found,) = json.loads(run.stdout)
    assert [(one["kind"], one["where"]) for one in found["findings"]] == [("advice", f"{S3}.{where}")]
    assert found["findings"][0]["source"].startswith("https://")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("YYYY/MM/dd", "the year is y"),
        ("yyyy/MM/DD", "the day of the month is d"),
        ("yyyy/mm/dd", "the month is M"),
        ("yyyy/MM/dd/hh", "0 to 23 is H"),
        ("yyyy/MM/dd/HH/mm", None),
        ("YYYY-'W'ww", None),
        ("yyyy'YmhD'/MM", None),
    ],
)
def test_letters_of_a_time_that_mean_something_else_are_told(streams, write, offline_bucket, pattern, said):
    given = offline_bucket.plain(
        Prefix=f"d/!{{timestamp:{pattern}}}/", ErrorOutputPrefix="e/!{firehose:error-output-type}/"
    )
    (found,) = json.loads(streams("validate", write("s.json", of(given)), "--json").stdout)
    told = [one["message"] for one in found["findings"] if one["where"] == f"{S3}.Prefix"]
    assert len(told) == (said is not None)
    assert all(said in message for message in told)


def test_what_only_the_server_here_lacks_is_no_error(streams, write, destination):
    source = {"MSKSourceConfiguration": {"MSKClusterARN": "arn:aws:kafka:us-east-1:000000000000:cluster/c/1-1"}}
    connected = {
        "TopicName": "t",
        "AuthenticationConfiguration": {"RoleARN": "arn:aws:iam::000000000000:role/r", "Connectivity": "PRIVATE"},
    }
    source["MSKSourceConfiguration"] |= connected
    run = streams("validate", write("s.json", {**of(destination), **source}))
    assert run.returncode == 0
    assert run.stdout.startswith("clicks (s.json): valid, 1 limit of the server here\n")


TEMPLATE = """\
Resources:
  Bucket: {Type: AWS::S3::Bucket}
  Clicks:
    Type: AWS::KinesisFirehose::DeliveryStream
    Properties:
      ExtendedS3DestinationConfiguration:
        RoleARN: !GetAtt Role.Arn
        BucketARN: !Sub "arn:${AWS::Partition}:s3:::${Bucket}"
        Prefix: !Join ["/", ["clicks", !Ref Stage, "tenant=!{partitionKeyFromQuery:tenant}/"]]
        ErrorOutputPrefix: errors/!{firehose:error-output-type}/
        BufferingHints: {SizeInMBs: "64", IntervalInSeconds: !Ref Seconds}
        CloudWatchLoggingOptions: {Enabled: "true", LogGroupName: !Ref Logs, LogStreamName: d}
        DynamicPartitioningConfiguration: {Enabled: true}
        ProcessingConfiguration:
          Enabled: true
          Processors:
            - Type: MetadataExtraction
              Parameters:
                - {ParameterName: MetadataExtractionQuery, ParameterValue: "{tenant: .tenant}"}
                - {ParameterName: JsonParsingEngine, ParameterValue: JQ-1.6}
            - Type: AppendDelimiterToRecord
"""


def test_a_cloudformation_template_is_read_with_its_functions(streams, write):
    run = streams("validate", write("stack.yaml", TEMPLATE))
    assert (run.returncode, run.stdout) == (0, "Clicks (stack.yaml: Clicks): valid\n")
    run = streams("explain", "stack.yaml", "--event", "-", "--at", "2026-03-01T10:00:00Z", "--json", given=EVENT)
    (found,) = json.loads(run.stdout)
    assert found["events"][0]["bucket"] == "Bucket"
    assert found["events"][0]["prefix"] == "clicks/Stage/tenant=ewr/"


def test_a_template_that_is_wrong_is_told(streams, write):
    run = streams("validate", write("stack.yaml", TEMPLATE.replace("Enabled: true\n          Proc", "Proc")))
    assert run.returncode == 1
    assert f"error   {S3}.ProcessingConfiguration\n" in run.stdout


@pytest.mark.parametrize("shape", ["request", "resource", "properties", "template", "list", "yaml"])
def test_a_definition_is_read_in_every_shape(streams, write, destination, shape):
    resource = {"Type": "AWS::KinesisFirehose::DeliveryStream", "Properties": of(destination)}
    shapes = {
        "request": of(destination),
        "resource": resource,
        "properties": {S3: {**destination, "RoleARN": {"Fn::GetAtt": ["Role", "Arn"]}}},
        "template": {"Resources": {"One": resource}},
        "list": [of(destination)],
        "yaml": yaml.safe_dump(of(destination)),
    }
    run = streams("validate", write("s", shapes[shape]))
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith(": valid\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "s: not JSON: "),
        ("a: [", "s: neither JSON nor YAML: "),
        ("[]", "s: got an empty list, at least one definition of a stream is needed"),
        ("just text", "s: got str, an object with a stream's members is needed"),
        ('{"a": 1, "b": 2}', "s: got a, b; a CreateDeliveryStream request, or a CloudFormation resource or template"),
        ('{"Resources": {}}', "s: the template has no resource of type AWS::KinesisFirehose::DeliveryStream"),
    ],
)
def test_a_file_that_holds_no_definition_is_told(streams, write, content, said):
    run = streams("validate", write("s", content))
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"lakehose: {said}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("validate", "none.json"), "FILE: none.json: can't be read: No such file or directory"),
        (("explain", "s.json", "--event", "none"), "--event: none: can't be read: No such file or directory"),
        (("explain", "s.json", "--event", "-"), "--event: got nothing, at least one event is needed"),
        (("explain", "-", "--event", "-"), "explain: FILE and --event can't both be -, there is one standard input"),
        (
            ("explain", "s.json", "--event", "s.json", "--at", "noon"),
            "--at: got 'noon', a time of ISO 8601 is needed, as in 2026-01-31T10:00:00Z",
        ),
        (("validate", "s.json", "--stream", "click"), "--stream: got 'click', allowed are: clicks; did you mean"),
        (("validate",), "lake.yaml: no such file; name the declaration with --lake"),
    ],
)
def test_a_mistake_in_the_call_is_told(streams, write, destination, arguments, said):
    write("s.json", of(destination))
    run = streams(*arguments)
    assert run.returncode == 2
    assert run.stderr.startswith(f"lakehose: {said}")


def test_events_are_explained_line_by_line(streams, write, destination):
    write("s.json", of(destination))
    run = streams("explain", "s.json", "--event", "-", "--at", "2026-03-01T10:00:00+02:00", given=f"{EVENT}\n\nbad\n")
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    assert lines[0] == "clicks (s.json)"
    assert lines[1:4] == [
        f"  event 1: {EVENT}",
        "    keys    tenant=ewr, day=2013-05-07",
        "    prefix  processed/tenant=ewr/day=2013-05-07/",
    ]
    start = "    object  s3://lake-offline/processed/tenant=ewr/day=2013-05-07/clicks-1-2026-03-01-08-00-00-"
    assert lines[4].startswith(start)
    assert lines[5] == "  event 2: bad"
    assert lines[6].startswith(
        "    refused processing-failed: DynamicPartitioning.MetadataExtractionFailed: The record is not valid JSON"
    )
    assert lines[7] == "    prefix  errors/processing-failed/"
    assert len(lines) == 9


def test_one_event_may_be_laid_out_over_lines(streams, write, destination):
    write("s.json", of(destination))
    laid_out = json.dumps(json.loads(EVENT), indent=2)
    (found,) = json.loads(streams("explain", "s.json", "--event", write("e.json", laid_out), "--json").stdout)
    assert [one["keys"] for one in found["events"]] == [{"tenant": "ewr", "day": "2013-05-07"}]


def test_a_wrong_definition_is_not_explained(streams, write, destination):
    write("s.json", of(without(destination, "ProcessingConfiguration", "ErrorOutputPrefix")))
    run = streams("explain", "s.json", "--event", "-", given=EVENT)
    assert run.returncode == 2
    assert run.stderr == (
        f"lakehose: s.json: stream clicks can't be made: {S3}.ErrorOutputPrefix: ErrorOutputPrefix is needed when"
        " Prefix contains expressions, and 1 more; `lakehose streams validate` tells them all\n"
    )


def planned(run):
    return [(one["stream"], one["action"], one["differences"]) for one in json.loads(run.stdout)]


def test_a_plan_tells_what_would_be_made_what_is_there_and_what_differs(streams, write, server, bucket):
    request = of(bucket.partitioned())
    plan = ("plan", write("s.json", request), "--json")
    options = ("--endpoint", server.url)
    run = streams(*plan, options=options)
    assert (run.returncode, planned(run)) == (0, [("clicks", "create", [])])
    server.create("clicks", request[S3])
    run = streams(*plan, options=options)
    assert (run.returncode, planned(run)) == (0, [("clicks", "same", [])])

    request[S3]["BufferingHints"]["SizeInMBs"] = 128
    request[S3]["ProcessingConfiguration"]["Processors"][0]["Parameters"][0]["ParameterValue"] = "{tenant, day: .d}"
    del request[S3]["CompressionFormat"]
    write("s.json", request)
    run = streams(*plan, options=options)
    assert run.returncode == 1
    query = f"{S3}.ProcessingConfiguration.Processors[0].Parameters[0].ParameterValue"
    ((_, action, differences),) = planned(run)
    assert action == "differs"
    assert [(one["where"], one["ours"], one["theirs"], one["inPlace"]) for one in differences] == [
        (f"{S3}.BufferingHints.SizeInMBs", 128, 64, True),
        (query, "{tenant, day: .d}", "{tenant: .tenant, day: .event_time[0:10]}", True),
        (f"{S3}.CompressionFormat", None, "GZIP", True),
    ]


def test_a_plan_tells_what_cannot_be_changed_in_place(streams, write, server, bucket):
    server.create("clicks", bucket.plain())
    run = streams("plan", write("s.json", of(bucket.partitioned())), options=("--endpoint", server.url))
    assert run.returncode == 1
    assert (
        f"""
  {S3}.DynamicPartitioningConfiguration
    ours:   {{"Enabled": true}}
    theirs: nothing
    can't be changed in place: dynamic partitioning is switched on when a stream is created, or never, and is never \
switched off; it takes another stream
"""
        in run.stdout
    )


def test_a_plan_of_a_stream_that_was_left_unpartitioned_in_the_file_says_so(streams, write, server, bucket):
    server.create("clicks", bucket.partitioned())
    run = streams("plan", write("s.json", of(bucket.plain())), "--json", options=("--endpoint", server.url))
    ((_, _, differences),) = planned(run)
    fixed = [one["where"] for one in differences if not one["inPlace"]]
    assert fixed == [f"{S3}.DynamicPartitioningConfiguration"]


def test_the_plan_of_a_lake_is_what_apply_then_makes(tmp_path, streams, another_free_port):
    declared = (ROOT / "lake.yaml").read_text().replace("contracts/", f"{ROOT}/contracts/")
    (tmp_path / "lake.yaml").write_text(declared)
    options = ("--endpoint", f"http://127.0.0.1:{another_free_port}")
    names = ["acme-demo-flights-ewr", "acme-demo-flights-pooled"]
    state = ("--state", str(tmp_path / "state"))
    try:
        lakehose(tmp_path, "local", "up", "--port", str(another_free_port), *state)
        run = streams("plan", "--json", options=options)
        assert (run.returncode, planned(run)) == (0, [(name, "create", []) for name in names])
        lakehose(tmp_path, *options, "apply")
        run = streams("plan", "--json", options=options)
        assert (run.returncode, planned(run)) == (0, [(name, "same", []) for name in names])
        (tmp_path / "lake.yaml").write_text(declared.replace("size_mib: 64", "size_mib: 100"))
        run = streams("plan", "--stream", names[0], options=options)
        assert (run.returncode, run.stdout) == (
            1,
            f"differs  {names[0]} (lake.yaml)\n  {S3}.BufferingHints.SizeInMBs\n    ours:   100\n    theirs: 64\n",
        )
    finally:
        lakehose(tmp_path, "local", "reset", *state)


def lakehose(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lakehose", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
