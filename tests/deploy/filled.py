"""The two cluster files, filled in as their headers say."""

from __future__ import annotations

import dataclasses
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclasses.dataclass(frozen=True)
class ClusterFile:
    """One file, its cloud, and the cloud's own figures: vCPU, GiB of memory and GPUs of every machine in it."""

    path: str
    machine_key: str
    bucket: str
    sdk: str
    machines: dict[str, tuple[int, int, int]]

    @cached_property
    def text(self) -> str:
        return (ROOT / self.path).read_text()

    @property
    def header(self) -> str:
        return self.text.split("\n\n", 1)[0]

    @property
    def body(self) -> str:
        return "\n".join(line for line in self.text.splitlines() if not line.lstrip().startswith("#"))

    @property
    def listed(self) -> list[str]:
        """The variables that `envsubst` is told to fill in."""
        (listed,) = re.findall(r"envsubst '([^']*)'", self.header)
        return VARIABLE.findall(listed)

    def config(self) -> dict[str, Any]:
        """What `envsubst` makes of the file where every variable NAME holds `value-of-NAME`."""
        text = self.text
        for name in self.listed:
            text = text.replace(f"${{{name}}}", f"value-of-{name}")
        config: dict[str, Any] = yaml.safe_load(text)
        return config


AWS = ClusterFile(
    path="cluster.yaml",
    machine_key="InstanceType",
    bucket="s3://",
    sdk="boto3",
    machines={
        "m6i.xlarge": (4, 16, 0),
        "c6i.4xlarge": (16, 32, 0),
        "c6a.4xlarge": (16, 32, 0),
        "g6.4xlarge": (16, 64, 1),
        "g5.4xlarge": (16, 64, 1),
    },
)
GCP = ClusterFile(
    path="deploy/cluster-gcp.yaml",
    machine_key="machineType",
    bucket="gs://",
    sdk="google-api-python-client",
    machines={
        "n2-standard-4": (4, 16, 0),
        "n2-standard-16": (16, 64, 0),
        "n2d-standard-16": (16, 64, 0),
        "g2-standard-16": (16, 64, 1),
    },
)
