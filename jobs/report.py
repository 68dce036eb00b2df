"""Write one HTML page of all runs under a root: tables with chance levels, plots, best and worst examples.

`--help` explains the usage. The code is in xlt_ray/console/report.py.
"""

from xlt_ray import console
from xlt_ray.console.report import main

if __name__ == "__main__":
    console.run(main)
