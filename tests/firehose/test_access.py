"""Who may call: signatures of unmodified boto3, what is wrong with others, the credentials file, and TLS."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import orjson
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from firehose.credentials import Credential, read_credentials
from firehose.signatures import Verifier
from lake.aws_json import ServiceError
from lake.errors import EnvironmentProblemError
from tests.firehose.conftest import ONE_TRY, ROOT, running
from tests.firehose.test_firehose_commands import command

SITE, GUEST = ("AKIASITE", "site/secret+with=signs"), ("ASIAGUEST", "guest-secret")
FILE = f"""
[site-ewr]
aws_access_key_id = {SITE[0]}
aws_secret_access_key = {SITE[1]}

[guest]
aws_access_key_id = {GUEST[0]}
aws_secret_access_key = {GUEST[1]}
aws_session_token = a-token
expiration = 2099-01-01T00:00:00Z

[gone]
aws_access_key_id = ASIAGONE
aws_secret_access_key = gone-secret
aws_session_token = gone-token
expiration = 2020-01-01T00:00:00Z
"""


@pytest.fixture(scope="module")
def credentials_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("access") / "credentials"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return made_certificate(tmp_path_factory.mktemp("tls"))


def made_certificate(folder):
    paths = (folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-out", str(paths[0]), "-keyout", str(paths[1])),
        ],
        check=True,
        capture_output=True,
    )
    paths[1].chmod(0o600)
    return paths


def caller(server, key=SITE, service="firehose", region="us-east-1", url=None, **options):
    return boto3.client(
        service,
        endpoint_url=url or server.url,
        region_name=region,
        aws_access_key_id=key[0],
        aws_secret_access_key=key[1],
        config=ONE_TRY,
        **options,
    )


def refusal(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    found = caught.value.response
    return found["Error"]["Code"], found["Error"]["Message"], found["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, credentials_file):
    for make in running(tmp_path_factory.mktemp("guarded"), "http://127.0.0.1:9"):
        yield make("--credentials", str(credentials_file))


def test_those_who_have_a_key_are_served(guarded, offline_bucket):
    firehose = caller(guarded)
    firehose.create_delivery_stream(
        DeliveryStreamName="s",
        ExtendedS3DestinationConfiguration=offline_bucket.plain(),
        Tags=[{"Key": "ä", "Value": "ß"}],
    )
    for size in (1, 500):
        answer = firehose.put_record_batch(DeliveryStreamName="s", Records=[{"Data": b"\x00\xffx" * 100}] * size)
        assert answer["FailedPutCount"] == 0
    guest = caller(guarded, GUEST, aws_session_token="a-token")  # noqa: S106 - the test's own
    assert guest.list_delivery_streams()["DeliveryStreamNames"] == ["s"]
    assert firehose.delete_delivery_stream(DeliveryStreamName="s")
    assert caller(guarded, service="service-quotas").list_service_quotas(ServiceCode="firehose")["Quotas"]


@pytest.mark.parametrize(
    ("key", "options", "code", "said"),
    [
        (
            ("AKIANOBODY", "x"),
            {},
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        ((SITE[0], "wrong"), {}, "InvalidSignatureException", "The request signature we calculated does not match"),
        (SITE, {"region": "eu-west-1"}, "InvalidSignatureException", "Credential should be scoped to a valid region"),
        (GUEST, {}, "UnrecognizedClientException", "security token"),
        (GUEST, {"aws_session_token": "another"}, "UnrecognizedClientException", "security token"),
        (SITE, {"aws_session_token": "unasked"}, "UnrecognizedClientException", "security token"),
        (("ASIAGONE", "gone-secret"), {"aws_session_token": "gone-token"}, "ExpiredTokenException", "is expired"),
    ],
)
def test_others_are_refused_as_aws_refuses_them(guarded, key, options, code, said):
    found, message, status = refusal(caller(guarded, key, **options).list_delivery_streams)
    assert (found, said in message, status) == (code, True, 400)


def asked(server, path="/", headers=None, body=b"{}", method="POST"):
    try:
        with urlopen(Request(server.url + path, body, headers or {}, method=method), timeout=30) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def test_without_a_signature_only_health_and_metrics_answer(guarded):
    target = {"X-Amz-Target": "Firehose_20150804.ListDeliveryStreams"}
    status, body = asked(guarded, headers=target)
    told = {"__type": "MissingAuthenticationTokenException", "message": "Missing Authentication Token"}
    assert (status, orjson.loads(body)) == (400, told)
    # a path that answers everybody is none for calls
    for path in ("/metrics", "/_lakehose/health"):
        status, body = asked(guarded, path, headers=target)
        assert (status, orjson.loads(body)) == (400, told)
    for path in ("status", "flush", "faults"):
        method = "POST" if path == "flush" else "GET"
        status, body = asked(guarded, f"/_lakehose/{path}", body=None, method=method)
        assert orjson.loads(body)["__type"] == "MissingAuthenticationTokenException"
    assert asked(guarded, "/_lakehose/health", body=None, method="GET")[0] == 200
    status, figures = asked(guarded, "/metrics", body=None, method="GET")
    counted = re.search(rb'firehose_errors_total{code="MissingAuthenticationTokenException"} ([\d.]+)', figures)
    assert (status, float(counted[1]) >= 4) == (200, True)


def test_who_is_not_known_is_not_listened_to(guarded):
    # refused by the headers: 15 MiB of body are not kept
    signed = (
        "AWS4-HMAC-SHA256 Credential=NOBODY/20260301/us-east-1/firehose/aws4_request, SignedHeaders=host, Signature="
    )
    status, body = asked(guarded, headers={"Authorization": signed + "0" * 64}, body=b"x" * (15 << 20))
    assert (status, orjson.loads(body)["__type"]) == (400, "UnrecognizedClientException")


NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.fixture
def verifier():
    one = Credential("site", *SITE)
    return Verifier({one.access_key: one}, "us-east-1", NOW.timestamp)


@pytest.fixture
def signed(monkeypatch):
    """Headers of a request, signed by botocore at a time."""

    def sign(body=b"{}", path="/", moment=NOW, target="Firehose_20150804.PutRecord", **headers):
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: moment)
        given = {"Host": "firehose:4573", "X-Amz-Target": target, **headers}
        request = AWSRequest("POST", f"http://firehose:4573{path}", data=body, headers=given)
        SigV4Auth(Credentials(*SITE), "firehose", "us-east-1").add_auth(request)
        return [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.items()]

    return sign


def checked(verifier, headers, body=b"{}", path="/", method="POST"):
    try:
        verifier.verify(verifier.claim(headers, "firehose"), method, path, headers, body)
    except ServiceError as error:
        return error.code, str(error)
    return "passes", ""


def changed(headers, name, value):
    return [(one, value if one == name else old) for one, old in headers]


@pytest.mark.parametrize(
    ("method", "signature"),
    [
        ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ],
)
def test_aws_own_examples_pass(method, signature):
    # get-vanilla and post-vanilla of AWS's test suite for Signature Version 4
    one = Credential("example", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    verifier = Verifier({one.access_key: one}, "us-east-1", datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp)
    headers = [
        (b"host", b"example.amazonaws.com"),
        (b"x-amz-date", b"20150830T123600Z"),
        (
            b"authorization",
            b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,"
            b" SignedHeaders=host;x-amz-date, Signature=" + signature.encode(),
        ),
    ]
    claim = verifier.claim(headers, "service")
    verifier.verify(claim, method, "/", headers, b"")
    with pytest.raises(ServiceError):
        verifier.verify(claim, method, "/a", headers, b"")


@pytest.mark.parametrize("path", ["/", "/_lakehose/flush?stream=a%20b&x=1&a=", "/_lakehose/a%2Fb//c"])
@pytest.mark.parametrize("extra", [{}, {"X-Amz-Meta": "  two   spaces "}, {"X-Amz-Content-Sha256": "body"}])
def test_what_botocore_signs_passes(verifier, signed, path, extra):
    body = b'{"a": 1}'
    given = {name: hashlib.sha256(body).hexdigest() if value == "body" else value for name, value in extra.items()}
    assert checked(verifier, signed(body, path, **given), body, path) == ("passes", "")


def test_whatever_is_changed_is_found(verifier, signed):
    body = b'{"DeliveryStreamName": "s"}'
    headers = signed(body)
    invalid = "InvalidSignatureException"
    assert checked(verifier, headers, body)[0] == "passes"
    assert checked(verifier, headers, body + b" ")[0] == invalid
    assert checked(verifier, headers, body, "/other")[0] == invalid
    assert checked(verifier, headers, body, "/?a=1")[0] == invalid
    assert checked(verifier, headers, body, method="PUT")[0] == invalid
    assert checked(verifier, changed(headers, b"host", b"elsewhere"), body)[0] == invalid
    target = changed(headers, b"x-amz-target", b"Firehose_20150804.DeleteDeliveryStream")
    assert checked(verifier, target, body)[0] == invalid
    assert (
        checked(verifier, [*headers, (b"x-amz-target", b"Firehose_20150804.DeleteDeliveryStream")], body)[0] == invalid
    )


def test_a_header_of_amazons_that_is_not_signed_is_refused(verifier, signed):
    assert checked(verifier, [*signed(), (b"x-amz-later", b"1")]) == (
        "InvalidSignatureException",
        "'x-amz-later' must be a 'SignedHeader' in the AWS Authorization.",
    )


def test_an_unsigned_body_is_refused(verifier, signed):
    headers = signed(**{"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD"})
    assert checked(verifier, headers)[0] == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (-6, "Signature expired: 20260301T095400Z is now earlier than 20260301T095500Z (20260301T100000Z - 5 min.)"),
        (
            6,
            (
                "Signature not yet current: 20260301T100600Z is still later than 20260301T100500Z"
                " (20260301T100000Z + 5 min.)"
            ),
        ),
        (-4.9, ""),
        (4.9, ""),
    ],
)
def test_a_signature_is_good_for_five_minutes(verifier, signed, minutes, said):
    code, message = checked(verifier, signed(moment=NOW + timedelta(minutes=minutes)))
    assert (code, message) == ("InvalidSignatureException" if said else "passes", said)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (b"Bearer abc", "IncompleteSignatureException"),
        (b"AWS4-HMAC-SHA256", "IncompleteSignatureException"),
        (b"AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host", "IncompleteSignatureException"),
        (
            b"AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=" + b"0" * 64,
            "IncompleteSignatureException",
        ),
        (b"AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=\xff", "InvalidSignatureException"),
        (
            b"AWS4-HMAC-SHA256 Credential=AKIASITE/20260301/us-east-1/s3/aws4_request, SignedHeaders=host, Signature="
            + b"0" * 64,
            "InvalidSignatureException",
        ),
        (
            b"AWS4-HMAC-SHA256 Credential=AKIASITE/20250301/us-east-1/firehose/aws4_request,"
            b"SignedHeaders=host;x-amz-date;x-amz-target,Signature=" + b"0" * 64,
            "InvalidSignatureException",
        ),
    ],
)
def test_a_header_that_makes_no_sense_is_told(verifier, signed, given, code):
    assert checked(verifier, changed(signed(), b"authorization", given))[0] == code


_words = st.sampled_from(
    (
        *("AWS4-HMAC-SHA256", "Credential=", "AKIASITE", "20260301", "us-east-1", "firehose", "aws4_request", "host"),
        *("SignedHeaders=", "host;x-amz-date;x-amz-target", "Signature=", "0" * 64),
        *("/", ",", ";", "=", " ", "", "\xe9", "\0"),
    )
)


@given(st.lists(_words | st.text(max_size=5), max_size=16).map("".join), st.text(max_size=20), st.binary(max_size=8))
def test_no_header_passes_or_ends_in_anything_but_a_refusal(authorization, date, path):
    one = Credential("site", *SITE)
    headers = [
        (b"host", b"x"),
        (b"x-amz-target", b"Firehose_20150804.PutRecord"),
        (b"x-amz-date", date.encode() or b"20260301T100000Z"),
        (b"authorization", authorization.encode()),
    ]
    found = checked(
        Verifier({one.access_key: one}, "us-east-1", NOW.timestamp), headers, path=f"/{path.decode('latin-1')}"
    )
    assert found[0].endswith("Exception")


def test_no_date_is_told(verifier, signed):
    headers = [one for one in signed() if one[0] != b"x-amz-date"]
    authorization = next(value for name, value in headers if name == b"authorization").replace(b"x-amz-date;", b"")
    assert checked(verifier, changed(headers, b"authorization", authorization))[0] == "IncompleteSignatureException"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no section"),
        ("aws_access_key_id = x", "line 1: not in the form"),
        ("[a]\naws_access_key_id = x\n", r"\[a\]: aws_secret_access_key is missing"),
        ("[a]\naws_access_key_id = x\naws_secret_access_key = y\nregion = z", "region: allowed are"),
        ("[a]\naws_access_key_id = x\naws_secret_access_key = y\nexpiration = soon", "expiration: got 'soon'"),
        (
            "".join(f"[{name}]\naws_access_key_id = x\naws_secret_access_key = y\n" for name in "ab"),
            r"\[a\] and \[b\] have the same aws_access_key_id",
        ),
    ],
)
def test_a_credentials_file_that_is_wrong_is_told_without_its_secrets(tmp_path, text, said):
    path = tmp_path / "credentials"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(EnvironmentProblemError, match=said) as caught:
        read_credentials(path)
    assert "= y" not in str(caught.value)


def test_a_credentials_file_that_others_may_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "credentials"
    path.write_text(FILE)
    for mode in (0o644, 0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(EnvironmentProblemError, match=rf"mode {mode:04o}\): chmod 600"):
            read_credentials(path)
    # systemd hands files over with an access control list
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    path.chmod(0o440)
    assert set(read_credentials(path)) == {"AKIASITE", "ASIAGUEST", "ASIAGONE"}


def test_a_credential_does_not_print_its_secret(credentials_file):
    assert SITE[1] not in repr(read_credentials(credentials_file))


def test_credentials_are_read_again_on_sighup_and_wrong_ones_change_nothing(servers, tmp_path, wait_for):
    path = tmp_path / "credentials"
    path.write_text(FILE)
    path.chmod(0o600)
    server = servers("--credentials", str(path))
    assert caller(server).list_delivery_streams()["DeliveryStreamNames"] == []
    path.write_text("nonsense")
    os.kill(server.process.pid, signal.SIGHUP)
    wait_for(lambda: any("stay as they were" in line for line in server.errors))
    assert caller(server).list_delivery_streams()["DeliveryStreamNames"] == []
    path.write_text("[new]\naws_access_key_id = AKIANEW\naws_secret_access_key = new\n")
    os.kill(server.process.pid, signal.SIGHUP)
    wait_for(lambda: any("are read again" in line for line in server.errors))
    assert caller(server, ("AKIANEW", "new")).list_delivery_streams()["DeliveryStreamNames"] == []
    assert refusal(caller(server).list_delivery_streams)[0] == "UnrecognizedClientException"


def test_the_commands_sign_where_they_are_asked_to(guarded):
    keys = {"AWS_ACCESS_KEY_ID": SITE[0], "AWS_SECRET_ACCESS_KEY": SITE[1], "AWS_REGION": "us-east-1"}
    run = command("status", "--url", guarded.url, **keys)
    assert (run.returncode, run.stderr) == (0, "")
    assert "of records not delivered" in run.stdout
    wrong = command("status", "--url", guarded.url, **keys | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert (wrong.returncode, "signature we calculated" in wrong.stderr) == (2, True)


def test_tls_with_signatures_serves_boto3_and_the_commands(servers, credentials_file, certificate, offline_bucket):
    server = servers(
        *("--credentials", str(credentials_file), "--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    )
    url = server.url.replace("http://", "https://")
    firehose = caller(server, url=url, verify=str(certificate[0]))
    firehose.create_delivery_stream(DeliveryStreamName="s", ExtendedS3DestinationConfiguration=offline_bucket.plain())
    records = [{"Data": b"x" * 8000}] * 500
    assert firehose.put_record_batch(DeliveryStreamName="s", Records=records)["FailedPutCount"] == 0
    keys = {"AWS_ACCESS_KEY_ID": SITE[0], "AWS_SECRET_ACCESS_KEY": SITE[1], "AWS_CA_BUNDLE": str(certificate[0])}
    run = command("status", "--url", url, **keys)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[1].startswith("s           500")


def test_a_new_certificate_is_used_after_sighup(servers, tmp_path, wait_for):
    cert, key = made_certificate(tmp_path)
    server = servers("--tls-cert", str(cert), "--tls-key", str(key))

    def shown():
        return ssl.get_server_certificate(("127.0.0.1", server.port))

    first = shown()
    assert first.strip() == cert.read_text().strip()
    made_certificate(tmp_path)
    assert shown() == first
    os.kill(server.process.pid, signal.SIGHUP)
    wait_for(lambda: shown() != first)
    assert shown().strip() == cert.read_text().strip()


def test_a_client_that_does_not_speak_tls_holds_nothing_up(servers, certificate):
    server = servers("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    with pytest.raises(OSError, match=r".+"):
        urlopen(server.url + "/_lakehose/health", timeout=10)
    context = ssl.create_default_context(cafile=str(certificate[0]))
    secure = server.url.replace("http://", "https://")
    with urlopen(f"{secure}/_lakehose/health", timeout=10, context=context) as answer:
        assert answer.status == 200


def test_a_key_that_does_not_fit_or_is_open_is_told(tmp_path, certificate):
    (tmp_path / "other").mkdir()
    other = made_certificate(tmp_path / "other")
    base = ("serve", "--data-dir", tmp_path / "data", "--port", 0, "--tls-cert", certificate[0])
    for options, said in (
        ((), "one is given, both are needed"),
        (("--tls-key", other[1]), "a PEM certificate and its key without a password are needed"),
        (("--tls-key", tmp_path / "none"), "No such file"),
    ):
        run = command(*base, *options)
        assert (run.returncode, said in run.stderr) == (2, True), run.stderr
    other[1].chmod(0o644)
    assert "others than its owner may read it" in command(*base, "--tls-key", other[1]).stderr


@pytest.mark.parametrize("guarded_by", ["nothing", "credentials"])
def test_a_port_that_others_reach_is_warned_of(tmp_path, credentials_file, guarded_by):
    more = [] if guarded_by == "nothing" else ["--credentials", str(credentials_file)]
    serve = [*(sys.executable, "-m", "firehose", "serve", "--data-dir", str(tmp_path / "data"), "--port", "0"), *more]
    with subprocess.Popen(
        [*serve, "--host", "0.0.0.0"],  # noqa: S104 - that's what is warned of
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert "serving on http://0.0.0.0:" in process.stdout.readline()
        process.terminate()
        errors = process.stderr.read()
    assert ("whoever reaches this port may" in errors) == (guarded_by == "nothing")
