"""Which recordings of two languages translate each other, in speech that is not parallel? Pairs, and a corpus of them.

`--help` says how it is used; xlt_ray/console/mine.py is what it runs.
"""

from xlt_ray import console
from xlt_ray.console.mine import main

if __name__ == "__main__":
    console.run(main)
