"""Search for the fine-tuning settings with the best gain and retention; poor trials are stopped early.

`--help` explains the usage. The code is in xlt_ray/console/tune.py.
"""

from xlt_ray import console
from xlt_ray.console.tune import main

if __name__ == "__main__":
    console.run(main)
