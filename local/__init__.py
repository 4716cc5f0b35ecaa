"""The embedded AWS on one port of this machine: MiniStack, with our own Firehose and Athena in front of its."""
