"""Owns the lake's jobs in Airflow: DAGs from the same declaration that every other runner reads."""
