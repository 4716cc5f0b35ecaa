"""Owns the Helm charts and their installer."""
