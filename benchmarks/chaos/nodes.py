r"""Nodes over time: each job runs on a cluster that has none, and that Ray's own autoscaler lets grow and shrink.

    python -m benchmarks.chaos.nodes                       # about 10 minutes on 2 cores
    python -m benchmarks.chaos.nodes --only embed tune

The nodes are fake: raylets on this machine, of one CPU each, two at most. The autoscaler, its version 2, is real.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ray.autoscaler.v2.sdk import get_cluster_status
from rich.console import Console
from rich.table import Table

from benchmarks._origin import origin
from benchmarks.chaos import faults, world

JOBS = ("embed", "retrieval", "mine", "translate", "finetune", "tune", "study")
IDLE_MINUTES = 0.2
LONGEST_S = 900.0
_HEAD = "f" * 51 + "00000"
_TYPE = "cpu"
_HEAD_TYPE = "ray.head.default"  # what the fake provider calls it
_LISTS = (
    *("setup_commands", "initialization_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude"),
    "rsync_filter",
)


def main() -> None:
    """Run each job, print the nodes over time and a table."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="nodes-"))
    made = world.build(folder)
    (folder / "logs").mkdir()
    with _cluster(folder) as address:
        found = {job: _run(made, job, address) for job in options.only}
    _show(found)
    print(f"nodes: what the jobs said is in {folder}/logs")
    sys.exit(any(row["code"] for row in found.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS), help="jobs (all)")
    return parser.parse_args()


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[str]:
    """A head without CPUs and an autoscaler that may bring two nodes; its address."""
    port = faults.free_port()
    address = f"127.0.0.1:{port}"
    config = folder / "ray_bootstrap_config.yaml"  # where `ray up` leaves it, in the home of the head
    config.write_text(json.dumps(_config(address)))
    head = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=0"]
    head += ["--node-ip-address=127.0.0.1", "--include-dashboard=true", "--object-store-memory=100000000"]
    fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
    fake |= {"RAY_CLOUD_INSTANCE_ID": _HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD}
    with (folder / "logs" / "head.log").open("wb") as log:
        process = subprocess.Popen(
            [*head, f"--autoscaling-config={config}"], env=world.environment() | fake, stdout=log, stderr=log
        )
        try:
            _connect(address, process)
            yield address
        finally:
            process.terminate()
            process.wait()


def _config(address: str) -> dict[str, object]:
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "gcs_address": address,
        "launch_multiple": True,
        "head_node_id": _HEAD,
    }
    node = {"CPU": 1, "object_store_memory": 10**8}  # the fake provider takes no memory
    types = {
        _HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        _TYPE: {"resources": node, "node_config": {}, "min_workers": 0, "max_workers": 2},
    }
    empty: dict[str, object] = {name: [] for name in _LISTS} | {"file_mounts": {}, "auth": {}, "docker": {}}
    return empty | {
        "cluster_name": "nodes",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": provider,
        "available_node_types": types,
        "head_node_type": _HEAD_TYPE,
    }


def _connect(address: str, head: subprocess.Popen[bytes]) -> None:
    for _ in range(60):
        if head.poll() is not None:
            raise SystemExit("nodes: the head has ended; see its log")
        with contextlib.suppress(Exception):  # whatever says that nobody answers yet
            _num_nodes(address)
            return
        time.sleep(1)
    raise SystemExit("nodes: the head does not answer")


def _run(made: world.World, job: str, address: str) -> dict[str, float]:
    """Follow the nodes from the start of a job until the last one is gone."""
    root = made.folder / "runs" / job  # a search has trainings of its own name
    started = time.monotonic()
    on_head = {"RAY_ADDRESS": address, "HOME": str(made.folder)}
    process = made.start(job, str(root), f"logs/{job}.log", on_head)
    changes = [(0.0, _num_nodes(address))]
    ended = None
    while time.monotonic() - started < LONGEST_S:
        now = time.monotonic() - started
        if ended is None and process.poll() is not None:
            ended = now
        if (count := _num_nodes(address)) != changes[-1][1]:
            changes.append((now, count))
        if ended is not None and not count:
            break
        time.sleep(0.5)
    process.kill()
    code = process.wait()
    print(f"nodes: {job}: " + ", ".join(f"{count} at {at:.0f} s" for at, count in changes), flush=True)
    first = next((at for at, count in changes if count), float("nan"))
    ended = float("nan") if ended is None else ended
    most, last = max(count for _, count in changes), changes[-1]
    return {"code": code, "first": first, "most": most, "ended": ended, "gone": last[0] - ended, "left": last[1]}


def _num_nodes(address: str) -> int:
    status = get_cluster_status(address)
    return sum(node.ray_node_type_name == _TYPE for node in (*status.active_nodes, *status.idle_nodes))


def _show(found: dict[str, dict[str, float]]) -> None:
    title = f"nodes over time: {origin()}"
    table = Table(title=title, title_justify="left")
    table.add_column("job")
    for column in ("exit", "first node, s", "most nodes", "job done, s", "last node gone, s later", "nodes left"):
        table.add_column(column, justify="right")
    for job, row in found.items():
        cells = [row["code"], row["first"], row["most"], row["ended"], row["gone"], row["left"]]
        table.add_row(job, *(f"{cell:.0f}" for cell in cells))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
