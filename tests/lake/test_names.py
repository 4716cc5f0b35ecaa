from hypothesis import given
from hypothesis import strategies as st

from lake.names import Names

NAMES = Names("acme", "prod")


def test_names_of_a_tenant_are_literal():
    assert NAMES.bucket("big-shop") == "acme-big-shop-prod-datalake"
    assert NAMES.bucket("pooled") == "acme-pooled-prod-landing"
    assert NAMES.database("big-shop") == "acme_big_shop_prod"
    assert NAMES.stream("flights", "pooled") == "acme-prod-flights-pooled"
    assert NAMES.role("flights", "big-shop") == "acme-prod-flights-big-shop-firehose"
    assert NAMES.manifest_table() == "acme-prod-manifest"
    assert Names.processed_prefix("flights", "jfk") == "processed/flights/tenant=jfk/"


def test_a_long_name_is_cut_and_tagged():
    cut = NAMES.stream("d" * 40, "t" * 40)
    assert len(cut) == 64
    assert cut.startswith("acme-prod-dddddddddddddddddddddddddddddddddddddddd-ttt")
    assert cut[-9] == "-"


def test_two_long_names_that_differ_only_behind_the_cut_stay_apart():
    assert NAMES.stream("d" * 40, "t" * 39 + "a") != NAMES.stream("d" * 40, "t" * 39 + "b")


slug = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,20}){0,2}", fullmatch=True).filter(lambda one: len(one) <= 40)


@given(st.lists(slug, min_size=2, max_size=2, unique=True))
def test_no_two_tenants_share_a_bucket_or_a_database(tenants):
    long = Names("a-company-of-twenty-", "environment1")
    one, other = tenants
    assert long.bucket(one) != long.bucket(other)
    assert long.database(one) != long.database(other)
    assert len(long.bucket(one)) <= 63
