"""What a record's Data may be: strict base64, just as Python's own strict mode takes it."""

from __future__ import annotations

import base64
import binascii

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firehose.api import _decoded
from lake.aws_json import ServiceError


def strictly(text):
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        return None


def decoded(text):
    try:
        return _decoded(text)
    except ServiceError:
        return None


@given(
    st.text(alphabet="AQgw+/=-_ \né", max_size=24)
    | st.binary(max_size=80).map(lambda raw: base64.b64encode(raw).decode())
)
@example("")
@example("=")
@example("YQ==YQ==")
@example("YR==")
@example("YQ==\n")
def test_the_fast_decoder_takes_what_pythons_strict_one_takes(text):
    assert decoded(text) == strictly(text)


def test_what_is_no_base64_is_a_serialization_error():
    with pytest.raises(ServiceError, match="Data is not base64: 'YQ'") as caught:
        _decoded("YQ")
    assert caught.value.code == "SerializationException"


def test_what_is_not_text_is_not_decoded():
    with pytest.raises(TypeError):
        _decoded(7)
