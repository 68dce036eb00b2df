"""Retrieve the spoken translation of speech: R@1, R@5, R@10 and MRR for every ordered pair of languages.

`--help` explains the usage. The code is in xlt_ray/console/retrieval.py.
"""

from xlt_ray import console
from xlt_ray.console.retrieval import main

if __name__ == "__main__":
    console.run(main)
