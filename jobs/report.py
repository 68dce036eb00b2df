"""One HTML page of all runs under a root: tables beside their chance level, plots, best and worst retrievals.

`--help` says how it is used; xlt_ray/console/report.py is what it runs.
"""

from xlt_ray import console
from xlt_ray.console.report import main

if __name__ == "__main__":
    console.run(main)
