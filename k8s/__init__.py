"""Owns the lake's jobs on Kubernetes: SparkApplications as typed objects and as manifests; applying, watching, logs."""
