"""One HTML page of all runs under a root: tables beside their chance level, plots, best and worst retrievals.

  python jobs/report.py --root runs --name demo
  python jobs/report.py --root runs --log          (also logs what MLflow has no run of)
  python jobs/report.py --root runs --verify       (also compares the checksum of every file)

Reads the finished artifacts under ROOT. Writes ROOT/report/NAME/index.html, one file that needs nothing else. Names
artifacts of which a file is missing or damaged, with the command that makes it again, and shows the others.
"""

from xlt_ray.report.config import ReportJob

BASIC = ()
"""Settings of its groups that `--help` shows; `--help-all` shows every one."""


def main(job: ReportJob) -> None:
    """Collect, render, and log what is not logged."""
    import shlex

    from xlt_ray.errors import Damaged
    from xlt_ray.report.collect import collect
    from xlt_ray.report.render import render
    from xlt_ray.report.untracked import log_missing
    from xlt_ray.store import storage

    results = collect(job.root, verify=job.verify)
    page = storage.join(results.root, "report", job.name, "index.html")
    storage.write_bytes(page, render(results).encode())
    print(f"report: {shlex.quote(page)}")
    for name, problem in results.damaged.items():
        print(f"damaged: {name}: {problem}")
    if job.log:
        log_missing(job.root)
    if job.verify and results.damaged:
        raise Damaged(f"{len(results.damaged)} artifacts are damaged: {', '.join(results.damaged)}")
