"""Compare source languages for fine-tuning: one run for each, tested on all, as a transfer matrix.

`--help` explains the usage. The code is in xlt_ray/console/study.py.
"""

from xlt_ray import console
from xlt_ray.console.study import main

if __name__ == "__main__":
    console.run(main)
