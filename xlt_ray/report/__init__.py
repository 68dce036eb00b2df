"""The report: one self-contained HTML page of all artifacts under a root."""
