"""Encode a corpus once: from speech to shards of encoder frames.

`--help` explains the usage. The code is in xlt_ray/console/embed.py.
"""

from xlt_ray import console
from xlt_ray.console.embed import main

if __name__ == "__main__":
    console.run(main)
