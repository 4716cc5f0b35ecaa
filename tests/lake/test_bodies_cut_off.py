"""What breaks off on its way from S3 is asked for again, however the client tells it."""

import base64
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lake.clients import Cloud, is_passing
from lake.errors import TransientError
from lake.lines import Source

BODY = b'{"a":1}\n' * 5000


@pytest.fixture
def cutting(request):
    """An S3 that ends each answer after so many bytes, with a checksum of all or without."""
    sent, with_checksum, honest = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("ETag", '"e"')
            self.send_header("Content-Length", str(sent if honest else len(BODY)))
            if with_checksum:
                self.send_header("x-amz-checksum-crc32", base64.b64encode(zlib.crc32(BODY).to_bytes(4)).decode())
            self.end_headers()
            self.wfile.write(BODY[:sent])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Cloud("us-east-1", f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "cutting",
    [(0, True, False), (20_000, True, False), (0, False, False), (20_000, False, False), (0, True, True)],
    indirect=True,
)
def test_an_object_that_breaks_off_is_no_lasting_error(cutting):
    with pytest.raises(TransientError, match="object s3://b/k: it can't be read"):
        Source(cutting.s3, "s3://b/k").fetch()
    body = cutting.s3.get_object(Bucket="b", Key="k")["Body"]
    with pytest.raises(Exception, match=r"checksum|bytes read|IncompleteRead|bytes missing") as caught:
        body.read()
    assert is_passing(caught.value)
