"""Settings of the report."""

from __future__ import annotations

import dataclasses

from xlt_ray.job.settings import check_name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReportJob:
    """Settings of jobs/report.py."""

    preset: str = "demo"
    """A named set of settings to start from; other flags change it."""
    config: str | None = None
    """File of settings in YAML. Other flags win over it."""
    root: str = "runs"
    """Where the artifacts are; the page is written to ROOT/report/NAME/index.html."""
    name: str = "demo"
    """Name of the page."""
    log: bool = False
    """Also log the finished artifacts that have no run in MLflow, such as those made while its server was down."""

    verify: bool = False
    """Also read every byte of the artifacts and compare checksums; where one is damaged, the exit code is 1."""

    def __post_init__(self) -> None:
        """Refuse names that would leave the root."""
        check_name(self.name)
