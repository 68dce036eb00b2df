"""Settings of the report."""

from __future__ import annotations

import dataclasses

from xlt_ray.job.settings import check_name, check_root


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReportJob:
    """Settings of jobs/report.py."""

    preset: str = "demo"
    """Named set of settings to start from; other flags override it."""
    config: str | None = None
    """Settings file in YAML. Other flags override it."""
    root: str = "runs"
    """Where the artifacts are. The page is written to ROOT/report/NAME/index.html."""
    name: str = "demo"
    """Name of the page."""
    log: bool = False
    """Also log finished artifacts that have no MLflow run, for example because the server was down."""

    verify: bool = False
    """Also read all artifacts and compare checksums. The exit code is 1 if one is damaged."""

    def __post_init__(self) -> None:
        """Refuse names that would leave the root."""
        check_name(self.name)
        check_root(self.root)
