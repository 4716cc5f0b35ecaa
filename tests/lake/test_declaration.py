import shutil
from pathlib import Path

import pytest

from lake.declaration import Tier, read_lake
from lake.errors import DeclarationError

ROOT = Path(__file__).parents[2]
GOOD = (ROOT / "lake.yaml").read_text()


@pytest.fixture
def declare(tmp_path):
    shutil.copytree(ROOT / "contracts", tmp_path / "contracts")

    def write(text):
        (tmp_path / "lake.yaml").write_text(text)
        return tmp_path / "lake.yaml"

    return write


def refusal(path):
    with pytest.raises(DeclarationError) as caught:
        read_lake(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_the_projects_own_lake_has_two_streams_and_four_owners():
    lake = read_lake(ROOT / "lake.yaml")
    assert [(one.name, one.bucket, one.tenants) for one in lake.streams()] == [
        ("acme-demo-flights-ewr", "acme-ewr-demo-datalake", ("ewr",)),
        ("acme-demo-flights-pooled", "acme-pooled-demo-landing", ("jfk", "lga")),
    ]
    assert lake.owners() == ("ewr", "jfk", "lga", "pooled")
    assert lake.tenant("ewr").tier is Tier.DEDICATED
    assert lake.stream_of("flights", "lga").name == "acme-demo-flights-pooled"


def test_a_lake_without_pooled_tenants_has_no_landing_bucket(declare):
    lake = read_lake(declare(GOOD.replace("tier: pooled", "tier: dedicated")))
    assert lake.owners() == ("ewr", "jfk", "lga")
    assert len(lake.streams()) == 3


def test_an_unknown_key_is_refused_with_what_was_meant(declare):
    path = declare(GOOD.replace("company: acme", "compny: acme"))
    assert "lake.yaml: compny: unknown key: got 'compny', allowed are: company, datasets" in refusal(path)
    assert "did you mean 'company'?" in refusal(path)


def test_an_unknown_key_of_a_tenant_is_refused_by_its_path(declare):
    path = declare(GOOD.replace("ewr: {tier: dedicated}", "ewr: {tier: dedicated, colour: red}"))
    assert refusal(path) == "lake.yaml: tenants.ewr.colour: unknown key: got 'colour', allowed are: tier"


def test_an_unknown_key_of_a_streams_buffering_is_refused_by_its_path(declare):
    path = declare(GOOD.replace("interval_seconds: 60", "intervall_seconds: 60"))
    assert "datasets.flights.buffering.intervall_seconds: unknown key" in refusal(path)
    assert "did you mean 'interval_seconds'?" in refusal(path)


def test_an_unknown_tier_is_refused_with_what_is_allowed(declare):
    path = declare(GOOD.replace("ewr: {tier: dedicated}", "ewr: {tier: golden}"))
    assert refusal(path) == "lake.yaml: tenants.ewr.tier: Input should be 'dedicated' or 'pooled'; got 'golden'"


def test_a_buffering_interval_that_aws_refuses_is_refused_here(declare):
    path = declare(GOOD.replace("interval_seconds: 60", "interval_seconds: 0"))
    expected = (
        "lake.yaml: datasets.flights.buffering.interval_seconds: Input should be greater than or equal to 1; got 0"
    )
    assert refusal(path) == expected


def test_a_quota_beyond_what_aws_grants_is_refused(declare):
    path = declare(GOOD.replace("active_partitions: 1000", "active_partitions: 5001"))
    assert "quotas.active_partitions: Input should be less than or equal to 5000; got 5001" in refusal(path)


def test_a_key_given_twice_is_refused(declare):
    path = declare(GOOD.replace("jfk: {tier: pooled}", "ewr: {tier: pooled}"))
    assert "'ewr' is there twice" in refusal(path)


@pytest.mark.parametrize("name", ["JFK", "a_b", "-a", "a--b", "a" * 41])
def test_a_tenants_name_that_no_bucket_can_hold_is_refused(declare, name):
    path = declare(GOOD.replace("jfk:", f"'{name}':"))
    assert f"tenants: got {name!r}, allowed are a-z, 0-9 and single hyphens" in refusal(path)


def test_the_pools_name_is_no_tenants(declare):
    assert "'pooled' is the name of what pooled tenants share" in refusal(declare(GOOD.replace("jfk:", "pooled:")))


def test_the_quarantine_tables_name_is_no_datasets(declare):
    text = GOOD.replace("  flights:\n", "  quarantine:\n")
    assert "'quarantine' is the name of the table of refused records" in refusal(declare(text))


def test_a_missing_declaration_says_which_option_names_it(tmp_path):
    assert refusal(tmp_path / "lake.yaml") == "lake.yaml: no such file; name the declaration with --lake"


def test_a_missing_contract_is_named_with_its_dataset(declare):
    path = declare(GOOD.replace("contracts/flights.yaml", "contracts/flight.yaml"))
    assert refusal(path) == "contracts/flight.yaml: no such contract file (dataset 'flights' names it)"


def test_an_unknown_tenant_is_answered_with_the_known_ones():
    lake = read_lake(ROOT / "lake.yaml")
    with pytest.raises(DeclarationError, match=r"tenant: got 'efr', allowed are: ewr, jfk, lga; did you mean 'ewr'"):
        lake.tenant("efr")
