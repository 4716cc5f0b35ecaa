"""Containers of compressed objects, read by those who read them elsewhere: Java, snappy-java and Hadoop."""

from __future__ import annotations

import gzip
import random
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

from firehose.containers import SNAPPY_BLOCK, gzipped, hadoop_snappy, snappy_stream, zipped
from firehose.objects import Compression, Recipe, render

ROOT = Path(__file__).parents[2]
NAME = UUID("00000000-0000-4000-8000-000000000007")
LABELS = {
    Compression.UNCOMPRESSED: ("", None),
    Compression.GZIP: (".gz", "gzip"),
    Compression.ZIP: (".zip", "zip"),
    Compression.SNAPPY: (".snappy", "snappy-java"),
    Compression.HADOOP_SNAPPY: (".snappy", "hadoop-snappy"),
}
BORDERS = [0, 1, SNAPPY_BLOCK - 1, SNAPPY_BLOCK, SNAPPY_BLOCK + 1, 2 * SNAPPY_BLOCK, 5 * SNAPPY_BLOCK + 7]


def content_of(size, kind, seed):
    """Make so many bytes that compress well, hardly, or as JSON does."""
    numbers = random.Random(seed)  # noqa: S311 - the same bytes each time
    if kind == "flat":
        return bytes([seed % 256]) * size
    if kind == "noise":
        return numbers.randbytes(size)
    lines = (b'{"flight":%d,"delay":%d}\n' % (n, numbers.getrandbits(16)) for n in range(size // 20 + 1))
    return b"".join(lines)[:size]


contents = st.builds(
    content_of,
    st.one_of(st.sampled_from(BORDERS), st.integers(0, 4 * SNAPPY_BLOCK)),
    st.sampled_from(["flat", "noise", "json"]),
    st.integers(0, 1 << 16),
)
# the JVM is the same for all examples, which leave nothing in it
several = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Java:
    """The classes that other people's programs read such objects with."""

    def __init__(self, gateway):
        self.jvm = gateway.jvm

    def opened(self, data):
        return self.jvm.java.io.ByteArrayInputStream(data)

    def snappy(self, data):
        """Read as Kafka's and many others' readers do."""
        return bytes(self.jvm.org.xerial.snappy.SnappyInputStream(self.opened(data)).readAllBytes())

    def hadoop(self, data):
        """Read as Spark and Hive do."""
        codec = self.jvm.org.apache.hadoop.io.compress.SnappyCodec()
        codec.setConf(self.jvm.org.apache.hadoop.conf.Configuration())
        return bytes(codec.createInputStream(self.opened(data)).readAllBytes())

    def gzip(self, data):
        return bytes(self.jvm.java.util.zip.GZIPInputStream(self.opened(data)).readAllBytes())

    def zip(self, data):
        """Read front to back, without the directory at the end: the entries' names, and the first one's content."""
        stream = self.jvm.java.util.zip.ZipInputStream(self.opened(data))
        names = [stream.getNextEntry().getName()]
        content = bytes(stream.readAllBytes())
        while (entry := stream.getNextEntry()) is not None:
            names.append(entry.getName())
        return names, content

    def content(self, compression, data):
        """Read an object by its compression."""
        readers = {
            Compression.UNCOMPRESSED: bytes,
            Compression.GZIP: self.gzip,
            Compression.ZIP: lambda raw: self.zip(raw)[1],
            Compression.SNAPPY: self.snappy,
            Compression.HADOOP_SNAPPY: self.hadoop,
        }
        return readers[compression](data)

    def written(self, kind, content):
        """Write with a class of snappy-java's, by itself."""
        made = self.jvm.java.io.ByteArrayOutputStream()
        stream = getattr(self.jvm.org.xerial.snappy, kind)(made)
        stream.write(content)
        stream.close()
        return bytes(made.toByteArray())


@pytest.fixture(scope="module")
def java():
    jars = Path(find_spec("pyspark").origin).parent / "jars"
    port, process = launch_gateway(
        jarpath=str(next(jars.glob("py4j-*.jar"))),
        classpath=f"{jars}/*",
        java_path=None,  # JAVA_HOME's, or PATH's
        die_on_exit=True,
        return_proc=True,
    )
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port))
    yield Java(gateway)
    gateway.shutdown()
    process.stdin.close()
    process.wait(30)


@several
@given(contents)
@example(b"")
def test_gzip_is_read_back(java, content):
    made = gzipped(content)
    assert gzip.decompress(made) == content
    assert java.gzip(made) == content


@several
@given(contents)
@example(b"")
def test_a_zip_is_read_back_from_its_directory_and_as_a_stream(java, content):
    made = zipped(content, NAME)
    with zipfile.ZipFile(BytesIO(made)) as archive:
        assert archive.testzip() is None
        assert [one.compress_type for one in archive.infolist()] == [zipfile.ZIP_DEFLATED]
        assert archive.read(str(NAME)) == content
    assert java.zip(made) == ([str(NAME)], content)


@several
@given(contents)
@example(b"")
def test_a_snappy_stream_is_read_back_by_snappy_java(java, content):
    assert java.snappy(snappy_stream(content)) == content


@several
@given(contents)
@example(b"")
def test_hadoop_snappy_is_read_back_by_hadoops_codec(java, content):
    assert java.hadoop(hadoop_snappy(content)) == content


@several
@given(
    st.sampled_from(Compression),
    st.lists(st.one_of(st.binary(), contents), min_size=1, max_size=6),
    st.sampled_from([b"", b"\n", b"\r\n"]),
)
def test_records_are_read_back_whatever_the_compression(java, compression, records, suffix):
    made = render(Recipe(compression, suffix), records, NAME)
    assert java.content(compression, made) == b"".join(record + suffix for record in records)


# Where Snappy's own choices leave no room: another version of the same library may find other matches in more content.
@pytest.mark.parametrize("content", [b"", b"x", b'{"a":1}\n' * 86, *(content_of(size, "noise", 1) for size in BORDERS)])
def test_both_snappy_containers_are_byte_for_byte_those_of_snappy_java(java, content):
    assert snappy_stream(content) == java.written("SnappyOutputStream", content)
    assert hadoop_snappy(content) == java.written("SnappyHadoopCompatibleOutputStream", content)


def test_the_two_containers_of_snappy_are_not_the_same():
    assert snappy_stream(b"x") == b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x03\x01\x00x"
    assert hadoop_snappy(b"x") == b"\x00\x00\x00\x01\x00\x00\x00\x03\x01\x00x"


def test_a_zips_entry_has_the_first_time_and_can_be_read_by_who_unpacks_it():
    with zipfile.ZipFile(BytesIO(zipped(b"x", NAME))) as archive:
        (entry,) = archive.infolist()
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    assert entry.external_attr >> 16 == 0o100644


def test_arrow_is_loaded_by_the_first_snappy_object_and_not_before():
    said = (
        "import sys, firehose.serve, firehose.app\n"
        "from firehose.containers import gzipped, snappy_stream\n"
        "gzipped(b'x')\n"
        "print('pyarrow' in sys.modules)\n"
        "snappy_stream(b'x')\n"
        "print('pyarrow' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", said], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("compression", LABELS)
def test_the_server_delivers_every_compression(server, s3, bucket, java, compression):
    ending, encoding = LABELS[compression]
    server.create("raw", bucket.plain(CompressionFormat=compression.value))
    records = [content_of(size, "json", size) for size in (1, SNAPPY_BLOCK, 300_000)] + [b"", b"\x00\xff"]
    server.batch("raw", records)
    assert server.flush("raw") == {"raw": {"objects": 1, "records": 5}}
    (key,) = bucket.objects()
    assert re.fullmatch(r"raw/(\d+/){4}raw-1-\d{4}(-\d\d){5}-[0-9a-f-]{36}" + re.escape(ending), key)
    head = s3.head_object(Bucket=bucket.name, Key=key)
    assert (head.get("ContentEncoding"), head["ContentType"]) == (encoding, "application/octet-stream")
    assert java.content(compression, bucket.body(key)) == b"".join(records)
    (described,) = server.firehose.describe_delivery_stream(DeliveryStreamName="raw")["DeliveryStreamDescription"][
        "Destinations"
    ]
    assert described["ExtendedS3DestinationDescription"]["CompressionFormat"] == compression.value
    assert server.status()["streams"]["raw"]["trouble"] is None


def test_a_file_extension_replaces_that_of_a_compression(server, s3, bucket, java):
    server.create("raw", bucket.plain(CompressionFormat="HADOOP_SNAPPY", FileExtension=".json.hsnappy"))
    server.batch("raw", [b"x"])
    server.flush("raw")
    (key,) = bucket.objects()
    assert key.endswith(".json.hsnappy")
    assert s3.head_object(Bucket=bucket.name, Key=key)["ContentEncoding"] == "hadoop-snappy"
    assert java.hadoop(bucket.body(key)) == b"x"


@pytest.mark.parametrize("compression", ["ZIP", "Snappy", "HADOOP_SNAPPY"])
def test_records_of_nothing_make_an_object_of_nothing(server, bucket, java, compression):
    server.create("raw", bucket.plain(CompressionFormat=compression))
    server.batch("raw", [b"", b""])
    server.flush("raw")
    (key,) = bucket.objects()
    assert java.content(Compression(compression), bucket.body(key)) == b""
