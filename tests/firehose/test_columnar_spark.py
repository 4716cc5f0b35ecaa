"""Files of converted records, read by Spark."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime

import orjson

from firehose.columnar import columnar
from firehose.conversion import Conversion

COLUMNS = (
    ("id", "string"),
    ("t", "tinyint"),
    ("d", "double"),
    ("m", "decimal(20,3)"),
    ("day", "date"),
    ("at", "timestamp"),
    ("tags", "array<string>"),
    ("person", "struct<name:string,seen:timestamp>"),
    ("attrs", "map<string,array<int>>"),
)
GIVEN = {
    "id": "a",
    "t": -128,
    "d": 0.1,
    "m": "1.0005",
    "day": "9999-12-31",
    "at": "9999-12-31T23:59:59.999999Z",
    "tags": ["x", None],
    "person": {"name": "Zoe", "seen": 1518033528},
    "attrs": {"k": [1]},
}
READ = [
    *("a", "-128", "0.1", "1.001", "9999-12-31"),
    str(round(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1_000_000 + 999_999),
    *("x,-", "Zoe", "1518033528000000", '{"k":[1]}'),
]
EXPRESSIONS = [
    *(
        "id",
        "t",
        "d",
        "m",
        "day",
        "unix_micros(at)",
        "array_join(tags, ',', '-')",
        "person.name",
        "unix_micros(person.seen)",
        "to_json(attrs)",
    ),
]
# a process of its own: a session of this one's would decide which jars later tests have
SCRIPT = """
import sys, json
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
wanted = [f"cast({one} AS string)" for one in json.loads(sys.argv[1])]
made = {path: [list(row) for row in spark.read.format(path.rpartition(".")[2]).load(path).selectExpr(*wanted).collect()]
        for path in sys.argv[2:]}
print(json.dumps(made))
"""


def test_spark_reads_both_formats_with_every_option(tmp_path):
    serializers = {
        "one.parquet": {"ParquetSerDe": {}},
        "v2.parquet": {
            "ParquetSerDe": {"WriterVersion": "V2", "EnableDictionaryCompression": True, "Compression": "GZIP"}
        },
        "one.orc": {"OrcSerDe": {}},
        "zlib.orc": {"OrcSerDe": {"Compression": "ZLIB", "BloomFilterColumns": ["id", "tags"], "RowIndexStride": 1000}},
    }
    for name, serializer in serializers.items():
        made = Conversion(COLUMNS, {"OpenXJsonSerDe": {}}, serializer)
        (tmp_path / name).write_bytes(columnar(made, [orjson.dumps(GIVEN), b"{}"]))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT,
            orjson.dumps(EXPRESSIONS).decode(),
            *(str(tmp_path / name) for name in serializers),
        ],
        cwd=tmp_path,
        env={**os.environ, "TZ": "UTC"},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = orjson.loads(done.stdout.splitlines()[-1])
    assert {path.rpartition("/")[2]: rows for path, rows in found.items()} == {
        name: [READ, [None] * len(READ)] for name in serializers
    }
