"""What does speech become in writing? Translations and transcripts with BLEU, chrF, WER and, where asked for, COMET.

`--help` says how it is used; xlt_ray/console/translate.py is what it runs.
"""

from xlt_ray import console
from xlt_ray.console.translate import main

if __name__ == "__main__":
    console.run(main)
