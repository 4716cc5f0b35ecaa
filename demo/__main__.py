"""Lets `python -m demo` run the demo; `make demo` calls it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo.run import Demo
from lake.errors import LakehoseError
from local.endpoint import DEFAULT_PORT, DEFAULT_STATE


def _events(text: str) -> int:
    count = int(text)
    if not 100 <= count <= 336_776:  # noqa: PLR2004 - the package's flights; fewer than 100 leave a site without any
        raise argparse.ArgumentTypeError(f"got {count}, allowed are 100 to 336776")
    return count


def main() -> int:
    """Run the demo as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="The main job on the flights of 2013.")
    parser.add_argument("--events", type=_events, default=None, help="flights to send; all 336,776 without it")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port of the local endpoint")
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help="folder of its state")
    parser.add_argument("--lake", type=Path, default=Path("lake.yaml"), help="the declaration")
    parser.add_argument("--report", type=Path, default=Path("build/demo/report.html"), help="where the report goes")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut off")
    parser.add_argument("--chaos", action="store_true", help="kill the Firehose server and a site with -9 midway")
    given = parser.parse_args()
    try:
        demo = Demo(given.lake, given.state, given.port, given.events, given.report)
        return demo.run(resume=given.resume, chaos=given.chaos)
    except LakehoseError as error:
        sys.stderr.write(f"demo: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted; `make demo RESUME=1` goes on\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
