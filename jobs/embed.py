"""Encode a corpus once: speech in, shards of encoder frames out.

`--help` says how it is used; xlt_ray/console/embed.py is what it runs.
"""

from xlt_ray import console
from xlt_ray.console.embed import main

if __name__ == "__main__":
    console.run(main)
