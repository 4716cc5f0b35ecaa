from lake.envelope import Identity
from lake.erasure import ErasedRecords, erased_records

ID = "018cc251-f400-7000-8000-000000000001"  # made on 2024-01-01


def test_records_that_go_are_told_as_ingest_counted_them():
    whose = [
        Identity(ID, "ann", "phone", 3),
        Identity(ID, "ann", "phone", 3),
        Identity(ID, "ann", "phone", 4),
        Identity("odd", None, "phone", 7),
        Identity(ID, None, "van", 1),
        Identity(None, None, None, None),
    ]
    assert erased_records(whose, None, {"van": "bob"}) == (
        ErasedRecords("-", None, "-", 1, ""),
        ErasedRecords("-", "phone", "-", 1, "7"),
        ErasedRecords("ann", "phone", "2024-01-01", 3, "3-4"),
        ErasedRecords("bob", "van", "2024-01-01", 1, "1"),
    )


def test_what_names_no_tenant_is_the_prefixs():
    (told,) = erased_records([Identity(ID, None, "phone", 3)], "solo", {"phone": "bob"})
    assert told.tenant == "solo"
