import pandas as pd

from demo.questions import Answer, busiest_routes_of, delays_of, differences

SOURCE = pd.DataFrame(
    {
        "origin": ["JFK", "JFK", "EWR"],
        "dest": ["LAX", "LAX", "ORD"],
        "carrier": ["AA", "AA", "UA"],
        "month": [1, 1, 2],
        "arr_delay": [10.0, 13.0, None],
    }
)


def test_the_source_is_asked_for_its_busiest_routes():
    assert busiest_routes_of(SOURCE).rows == (("JFK", "LAX", "2"), ("EWR", "ORD", "1"))


def test_the_source_is_asked_for_its_delays():
    assert delays_of(SOURCE).rows == (("AA", "1", "2", "11.5"), ("UA", "2", "0", None))


def test_equal_answers_do_not_differ_even_where_decimals_are_cut():
    ours = Answer(("a",), (("x", "11.6667"),))
    theirs = Answer(("a",), (("x", "11.666666666"),))
    assert differences(ours, theirs) == []


def test_whole_numbers_must_be_equal():
    said = differences(Answer(("n",), (("1000",),)), Answer(("n",), (("1001",),)))
    assert said == ["row 0: 1000 from Athena, 1001 from pandas"]


def test_a_missing_row_is_said():
    assert differences(Answer(("n",), ()), Answer(("n",), (("1",),))) == ["0 rows from Athena, 1 from pandas"]


def test_a_null_is_no_number():
    assert differences(Answer(("n",), ((None,),)), Answer(("n",), (("0.0",),))) != []
