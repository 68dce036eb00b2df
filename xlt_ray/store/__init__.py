"""How results are kept: places, artifacts, tables, shards."""
