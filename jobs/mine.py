"""Mine translation pairs from speech that is not parallel, and write them as a corpus.

`--help` explains the usage. The code is in xlt_ray/console/mine.py.
"""

from xlt_ray import console
from xlt_ray.console.mine import main

if __name__ == "__main__":
    console.run(main)
