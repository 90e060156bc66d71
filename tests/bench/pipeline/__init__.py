"""Pipelines on GPUs, at a large model's shapes with made-up weights."""
