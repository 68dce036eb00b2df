"""One HTML page of all runs under a root: tables beside their chance level, plots, best and worst retrievals.

  python jobs/report.py --root runs --name demo
  python jobs/report.py --root runs --log          (also logs what MLflow has no run of)

Reads the finished artifacts under ROOT. Writes ROOT/report/NAME/index.html, one file that needs nothing else.
"""

import shlex

from xlt_ray.job import cli
from xlt_ray.presets import PRESETS
from xlt_ray.report.collect import collect
from xlt_ray.report.config import ReportJob
from xlt_ray.report.render import render
from xlt_ray.report.untracked import log_missing
from xlt_ray.store import artifacts


def main(job: ReportJob) -> None:
    """Collect, render, and log what is not logged."""
    page = artifacts.Artifact.at(job.root, "report", job.name)
    page.write_bytes("index.html", render(collect(job.root)).encode())
    print(f"report: {shlex.quote(page.path('index.html'))}")
    if job.log:
        log_missing(job.root)


if __name__ == "__main__":
    cli.run(main, PRESETS)
