"""The report: artifacts under a root in, one self-contained HTML page out."""
