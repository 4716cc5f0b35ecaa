from __future__ import annotations

import pytest

from athena.sql import StatementType, classify, with_parameters


@pytest.mark.parametrize(
    ("sql", "kind", "substatement"),
    [
        ("SELECT 1", "DML", "SELECT"),
        ("  -- first\n /* then */ ( select 1 )", "DML", "SELECT"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "DML", "SELECT"),
        ("VALUES 1, 2", "DML", "SELECT"),
        ("insert into t select 1", "DML", "INSERT"),
        ("UPDATE t SET a = 1", "DML", "UPDATE"),
        ("DELETE FROM t", "DML", "DELETE"),
        ("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE", "DML", "MERGE"),
        ("UNLOAD (SELECT 1) TO 's3://b/p/'", "DML", "UNLOAD"),
        ("OPTIMIZE t REWRITE DATA USING BIN_PACK", "DML", "OPTIMIZE"),
        ("VACUUM t", "DML", "VACUUM"),
        ("MSCK REPAIR TABLE t", "DDL", "MSCK_REPAIR"),
        ("CREATE TABLE t AS SELECT 1 a", "DDL", "CREATE_TABLE_AS_SELECT"),
        ("CREATE TABLE t WITH (format = 'PARQUET') AS (WITH a AS (SELECT 1) SELECT * FROM a)", "DDL",
         "CREATE_TABLE_AS_SELECT"),
        ("CREATE TABLE t (a int) COMMENT 'known as select'", "DDL", "CREATE_TABLE"),
        ("CREATE EXTERNAL TABLE t (a int)", "DDL", "CREATE_TABLE"),
        ("create or replace view v as select 1", "DDL", "CREATE_VIEW"),
        ("CREATE DATABASE d", "DDL", "CREATE_DATABASE"),
        ("CREATE SCHEMA d", "DDL", "CREATE_DATABASE"),
        ("DROP TABLE t", "DDL", "DROP_TABLE"),
        ("ALTER TABLE t ADD COLUMN a int", "DDL", "ALTER_TABLE"),
        ("SHOW TABLES IN d", "UTILITY", "SHOW_TABLES"),
        ("show databases", "UTILITY", "SHOW_DATABASES"),
        ("SHOW CREATE TABLE t", "UTILITY", "SHOW_CREATE_TABLE"),
        ("DESCRIBE t", "UTILITY", "DESCRIBE_TABLE"),
        ("EXPLAIN SELECT 1", "UTILITY", "EXPLAIN"),
        ("EXPLAIN ANALYZE SELECT 1", "UTILITY", "EXPLAIN_ANALYZE"),
        ("SELEC 1", "DDL", "UNKNOWN"),
    ],
)  # fmt: skip
def test_a_statement_is_known_by_its_first_words(sql, kind, substatement):
    found = classify(sql)
    assert (found.type, found.substatement) == (StatementType(kind), substatement)


@pytest.mark.parametrize(
    ("sql", "trimmed"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("SELECT 1 ; ;\n", "SELECT 1"),
        ("SELECT 1; -- done;", "SELECT 1"),
        ("SELECT ';'", "SELECT ';'"),
        ("SELECT '--x;';", "SELECT '--x;'"),
        ("SELECT 'it''s';/* end */", "SELECT 'it''s'"),
    ],
)
def test_the_semicolon_at_the_end_goes_and_no_other(sql, trimmed):
    assert classify(sql).sql == trimmed


def test_only_queries_have_a_csv_file():
    assert [classify(sql).extension for sql in ("SELECT 1", "SHOW TABLES", "DROP TABLE t")] == ["csv", "txt", "txt"]


def test_show_databases_is_said_in_trinos_words():
    assert classify("SHOW DATABASES LIKE 'databases%'").sql == "SHOW SCHEMAS LIKE 'databases%'"


@pytest.mark.parametrize("verb", ["UNLOAD", "OPTIMIZE", "VACUUM", "MSCK", "PREPARE", "EXECUTE", "DEALLOCATE"])
def test_what_is_not_served_says_so(verb):
    assert classify(f"{verb} x").refusal.startswith(verb)


def test_what_is_served_is_not_refused():
    assert classify("SELECT 1").refusal is None


def test_parameters_go_through_trinos_own_placeholders():
    found = with_parameters("SELECT 'it''s' WHERE a = ? AND b = ?", ("1", "'x'"))
    assert found == "EXECUTE IMMEDIATE 'SELECT ''it''''s'' WHERE a = ? AND b = ?' USING 1, 'x'"


def test_without_parameters_a_statement_stays_as_it_is():
    assert with_parameters("SELECT 1", ()) == "SELECT 1"
