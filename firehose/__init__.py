"""The Firehose room: stream definitions, and a self-hosted Amazon Data Firehose server that never loses a record."""
