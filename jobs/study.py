"""Which source language is best to fine-tune on? One run for each, scored on all: a transfer matrix.

`--help` says how it is used; xlt_ray/console/study.py is what it runs.
"""

from xlt_ray import console
from xlt_ray.console.study import main

if __name__ == "__main__":
    console.run(main)
