"""How well does speech find its spoken translation? R@1, R@5, R@10 and MRR for every ordered pair of languages.

`--help` says how it is used; xlt_ray/console/retrieval.py is what it runs.
"""

from xlt_ray import console
from xlt_ray.console.retrieval import main

if __name__ == "__main__":
    console.run(main)
