"""Owns Athena: its API on this machine over Trino, and the client that asks either that or AWS."""
