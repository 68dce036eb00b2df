"""Fine-tune the decoder on a new direction: training on en-zh alone also improves other languages into zh.

`--help` explains the usage. The code is in xlt_ray/console/finetune.py.
"""

from xlt_ray import console
from xlt_ray.console.finetune import main

if __name__ == "__main__":
    console.run(main)
