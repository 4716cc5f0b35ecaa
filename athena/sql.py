"""Owns what a statement is: Athena's types of statements, the file its result goes to, and what isn't served here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Statement", "StatementType", "classify", "with_parameters"]


class StatementType(StrEnum):
    """Athena's kinds of statements."""

    DDL = "DDL"
    DML = "DML"
    UTILITY = "UTILITY"


@dataclass(frozen=True)
class Statement:
    """One statement as it was given, and what it is."""

    sql: str
    """What Trino gets: without the semicolon at the end."""
    type: StatementType
    substatement: str
    """Athena's finer name, for example `SELECT` or `CREATE_TABLE_AS_SELECT`."""
    labels: tuple[str, ...] = ()
    """Names of the result's columns in Athena, where they differ from Trino's."""
    refusal: str | None = None
    """Why this endpoint doesn't run it; None when it does."""

    @property
    def has_rows(self) -> bool:
        """Whether the answer is rows of a query, with a header, in a CSV file."""
        return self.type is StatementType.DML

    @property
    def extension(self) -> str:
        """Ending of the result file's name."""
        return "csv" if self.type is StatementType.DML else "txt"


_SPACE = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]+")
_AS_SELECT = re.compile(r"\bAS\s*(?:\(\s*)*(?:SELECT|WITH|TABLE|VALUES)\b", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_LEADING_WORDS = 4

_QUERIES = {"SELECT", "WITH", "VALUES", "TABLE"}
_CHANGES = {"INSERT", "UPDATE", "DELETE", "MERGE"}
_DEFINITIONS = {"ALTER", "ANALYZE", "CALL", "COMMENT", "DROP", "GRANT", "REFRESH", "REVOKE", "TRUNCATE"}
_OBJECTS = {"TABLE", "VIEW", "SCHEMA", "DATABASE", "FUNCTION", "ROLE", "CATALOG"}
_LABELS = {
    "DESCRIBE_TABLE": ("col_name", "data_type", "extra", "comment"),
    "SHOW_DATABASES": ("database_name",),
    "SHOW_TABLES": ("tab_name",),
    "SHOW_COLUMNS": ("field",),
    "SHOW_CREATE_TABLE": ("createtab_stmt",),
    "SHOW_CREATE_VIEW": ("create_view_stmt",),
}
_REFUSED = {
    "UNLOAD": "UNLOAD is not served by the local endpoint; read the query's own result, or CREATE TABLE AS",
    "OPTIMIZE": "OPTIMIZE is not served by the local endpoint; `lakehose run compact` compacts tables",
    "VACUUM": "VACUUM is not served by the local endpoint; it is for Iceberg tables on AWS",
    "MSCK": "MSCK REPAIR TABLE is not served by the local endpoint; Iceberg tables need none",
    "PREPARE": "PREPARE is not served by the local endpoint; give ExecutionParameters with the query",
    "EXECUTE": "EXECUTE is not served by the local endpoint; give ExecutionParameters with the query",
    "DEALLOCATE": "DEALLOCATE is not served by the local endpoint; it keeps no prepared statements",
}
_REFUSED_AS = {
    "UNLOAD": (StatementType.DML, "UNLOAD"),
    "OPTIMIZE": (StatementType.DML, "OPTIMIZE"),
    "VACUUM": (StatementType.DML, "VACUUM"),
    "MSCK": (StatementType.DDL, "MSCK_REPAIR"),
    "PREPARE": (StatementType.DDL, "PREPARE"),
    "EXECUTE": (StatementType.DML, "EXECUTE"),
    "DEALLOCATE": (StatementType.DDL, "DEALLOCATE"),
}


def classify(text: str) -> Statement:
    """Tell what a statement is, by its first words; what can't be told goes to Trino, whose error is clear.

    >>> classify("SELECT 1;").substatement
    'SELECT'
    """
    sql = _trim(text)
    words = _leading_words(sql)
    first = words[0] if words else ""
    if first in _QUERIES:
        return Statement(sql, StatementType.DML, "SELECT")
    if first in _CHANGES:
        return Statement(sql, StatementType.DML, first)
    if first in _REFUSED:
        kind, name = _REFUSED_AS[first]
        return Statement(sql, kind, name, refusal=_REFUSED[first])
    if first == "EXPLAIN":
        return Statement(sql, StatementType.UTILITY, "EXPLAIN_ANALYZE" if words[1:2] == ["ANALYZE"] else "EXPLAIN")
    if first in {"DESCRIBE", "DESC"}:
        return Statement(sql, StatementType.UTILITY, "DESCRIBE_TABLE", labels=_LABELS["DESCRIBE_TABLE"])
    if first == "SHOW":
        return _show(sql, words)
    if first == "CREATE":
        return Statement(sql, StatementType.DDL, _create(sql, words))
    if first not in _DEFINITIONS:
        return Statement(sql, StatementType.DDL, "UNKNOWN")
    rest = [one for one in words[1:] if one in _OBJECTS][:1]
    return Statement(sql, StatementType.DDL, "_".join(_athenas(one) for one in [first, *rest]))


def _show(sql: str, words: list[str]) -> Statement:
    if words[1:2] == ["CREATE"]:
        name = "_".join(words[:3])
    elif words[1:2] in (["DATABASES"], ["SCHEMAS"]):
        # Athena says DATABASES, Trino SCHEMAS
        sql = re.sub(r"(?i)\bDATABASES\b", "SCHEMAS", sql, count=1)
        name = "SHOW_DATABASES"
    else:
        name = "_".join(words[:2])
    return Statement(sql, StatementType.UTILITY, name, labels=_LABELS.get(name, ()))


def _create(sql: str, words: list[str]) -> str:
    rest = [one for one in words[1:] if one not in {"OR", "REPLACE", "EXTERNAL"}]
    kind = rest[0] if rest else ""
    if kind == "TABLE" and _AS_SELECT.search(_QUOTED.sub(" '' ", sql)):
        return "CREATE_TABLE_AS_SELECT"
    return "_".join(one for one in ("CREATE", _athenas(kind)) if one)


def _athenas(word: str) -> str:
    return "DATABASE" if word == "SCHEMA" else word


def _trim(text: str) -> str:
    """Cut the semicolon at the end, and comments around it, which Trino doesn't take."""
    masked = _QUOTED.sub(
        lambda found: (" " if found.group().startswith(("--", "/*")) else "x") * len(found.group()), text
    )
    return text[: len(masked.rstrip("; \t\r\n"))].strip()


def _leading_words(sql: str) -> list[str]:
    words: list[str] = []
    at = 0
    while len(words) < _LEADING_WORDS:
        skipped = _SPACE.match(sql, at)
        word = _WORD.match(sql, skipped.end() if skipped else at)
        if word is None:
            break
        words.append(word.group().upper())
        at = word.end()
    return words


def with_parameters(sql: str, parameters: tuple[str, ...]) -> str:
    """Put values into a statement's `?` places, as Trino does it.

    Args:
        sql: with as many `?` as there are parameters.
        parameters: SQL literals, text in single quotes, as Athena's ExecutionParameters have it.
    """
    if not parameters:
        return sql
    quoted = sql.replace("'", "''")
    return f"EXECUTE IMMEDIATE '{quoted}' USING {', '.join(parameters)}"
