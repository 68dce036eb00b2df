"""Write one HTML page of all runs under a root: tables with chance levels, plots, best and worst examples.

  python jobs/report.py --root runs --name demo
  python jobs/report.py --root runs --log          (also logs artifacts without an MLflow run)
  python jobs/report.py --root runs --verify       (also compares the checksum of every file)

Reads the finished artifacts under ROOT. Writes ROOT/report/NAME/index.html, a single self-contained file. Artifacts
with a missing or damaged file are only listed, with the command that makes them again.
"""

from xlt_ray.report.config import ReportJob

BASIC = ()
"""Group settings that `--help` shows. `--help-all` shows all."""


def main(job: ReportJob) -> None:
    """Collect, render, and log artifacts without a run."""
    import shlex

    from xlt_ray.errors import Damaged
    from xlt_ray.report.collect import collect
    from xlt_ray.report.render import shown
    from xlt_ray.report.untracked import log_missing
    from xlt_ray.store import storage

    results, text = shown(collect(job.root, verify=job.verify))
    page = storage.join(results.root, "report", job.name, "index.html")
    storage.write_bytes(page, text.encode())
    print(f"report: {shlex.quote(page)}")
    if not results.artifacts and not results.damaged:
        print(f"nothing is finished under {shlex.quote(results.root)}; give the --root that the other jobs wrote to")
    for name, problem in results.damaged.items():
        print(f"damaged: {name}: {problem}")
    if job.log:
        log_missing(job.root)
    if job.verify and results.damaged:
        raise Damaged(f"{len(results.damaged)} artifacts are damaged: {', '.join(results.damaged)}")
