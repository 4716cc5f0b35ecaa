"""Lets `python -m lakehose` be the `lakehose` command."""

from lakehose.cli import main

main()
