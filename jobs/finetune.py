"""Teach the decoder a new direction from one language: en-zh alone also improves the other languages into zh.

`--help` says how it is used; xlt_ray/console/finetune.py is what it runs.
"""

from xlt_ray import console
from xlt_ray.console.finetune import main

if __name__ == "__main__":
    console.run(main)
