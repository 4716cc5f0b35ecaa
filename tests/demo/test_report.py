import re
from dataclasses import replace

from demo.flights import flights
from demo.questions import Answer
from demo.report import Question, RunFacts, render
from lake.audit import Row, Sheet

FACTS = RunFacts(
    title="a run",
    flights=flights(2000),
    stages=(("push", 12.0), ("ingest", 30.5)),
    sheet=Sheet(
        "flights", (Row("ewr", sent=2010, acknowledged=2000, delivered=2000, ingested=1990, duplicates=10),), ()
    ),
    questions=(Question("Busiest <routes>", "boto3", "SELECT 1", Answer(("n",), (("1,000",),)), 0.5, ()),),
    sizes={"ewr": ([1000, 2000], [2900])},
    objects=12,
    problems=(),
)


def test_the_report_needs_no_network():
    page = render(FACTS)
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "@import" not in page
    assert page.count("<svg") == 4


def test_the_report_is_the_same_for_the_same_run():
    assert render(FACTS) == render(FACTS)


def test_the_report_shows_the_sheet_and_the_answers_escaped():
    page = render(FACTS)
    assert "<td>2,010</td>" in page
    assert "Busiest &lt;routes&gt;" in page
    assert "Every record is accounted for" in page


def test_the_report_says_what_is_wrong():
    page = render(replace(FACTS, problems=("the audit does not balance",)))
    assert "1 problem(s)" in page
    assert "the audit does not balance" in page
    assert "Every record is accounted for" not in page
