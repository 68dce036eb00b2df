"""Which settings gain most and keep most? Trials of fine-tuning side by side, the worst of them stopped early.

`--help` says how it is used; xlt_ray/console/tune.py is what it runs.
"""

from xlt_ray import console
from xlt_ray.console.tune import main

if __name__ == "__main__":
    console.run(main)
