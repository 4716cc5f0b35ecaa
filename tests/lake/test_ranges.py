from hypothesis import given
from hypothesis import strategies as st

from lake.ranges import Ranges, dealt

numbers = st.sets(st.integers(0, 60))


def of(found):
    return Ranges.of((one, one) for one in found)


def members(ranges):
    return {one for first, last in ranges.spans for one in range(first, last + 1)}


@given(numbers, numbers)
def test_ranges_behave_as_sets_do(one, other):
    assert members(of(one) | of(other)) == one | other
    assert members(of(one) & of(other)) == one & other
    assert len(of(one)) == len(one)


@given(numbers, st.integers(0, 70))
def test_what_is_missing_is_what_is_not_there(one, end):
    assert members(of(one).missing_below(end)) == set(range(end)) - one


@given(numbers)
def test_text_of_ranges_reads_back(one):
    assert Ranges.parse(str(of(one))) == of(one)


def test_neighbours_join():
    assert str(Ranges.of([(5, 6), (0, 2), (3, 3)])) == "0-3,5-6"


@given(numbers, numbers)
def test_what_is_left_is_what_the_other_does_not_have(one, other):
    left = of(one) - of(other)
    assert members(left) == one - other
    assert left == of(one - other)


@given(numbers, st.integers(0, 70))
def test_the_highest_are_the_last_ones(one, count):
    assert members(of(one).highest(count)) == set(sorted(one)[max(0, len(one) - count) :])


@given(numbers, st.lists(numbers, max_size=6))
def test_what_is_dealt_goes_to_the_first_that_has_it(one, others):
    shares, rest = dealt(of(one), {str(place): of(other) for place, other in enumerate(others)})
    left, wanted = one, {}
    for place, other in enumerate(others):
        if left & other:
            wanted[str(place)] = left & other
        left = left - other
    assert {name: members(share) for name, share in shares.items()} == wanted
    assert members(rest) == left
    assert all(share == of(members(share)) for share in (*shares.values(), rest))


def test_a_range_longer_than_pythons_lengths_is_as_long_as_these():
    assert len(Ranges(((0, 2**64),))) == 2**63 - 1
    assert Ranges(((0, 2**64),))
