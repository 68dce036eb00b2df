"""Stores results: paths, artifacts, tables, shards."""
