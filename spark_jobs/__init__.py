"""The Spark jobs: each is `python -m spark_jobs.<job>`, by itself, whatever runs it."""
