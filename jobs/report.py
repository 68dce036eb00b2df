"""One HTML page of all runs under a root: tables beside their chance level, plots, best and worst retrievals.

  python jobs/report.py --root runs --name demo

Reads the finished artifacts under ROOT. Writes ROOT/report/NAME/index.html, one file that needs nothing else.
"""

from xlt_ray.job import cli
from xlt_ray.presets import PRESETS
from xlt_ray.report.collect import collect
from xlt_ray.report.config import ReportJob
from xlt_ray.report.render import render
from xlt_ray.store import artifacts


def main(job: ReportJob) -> None:
    """Collect and render."""
    page = artifacts.Artifact.at(job.root, "report", job.name)
    page.write_bytes("index.html", render(collect(job.root)).encode())
    print(f"report: {page.path('index.html')}")


if __name__ == "__main__":
    cli.run(main, PRESETS)
