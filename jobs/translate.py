"""Translate and transcribe speech, scored by BLEU, chrF, WER and optionally COMET.

`--help` explains the usage. The code is in xlt_ray/console/translate.py.
"""

from xlt_ray import console
from xlt_ray.console.translate import main

if __name__ == "__main__":
    console.run(main)
