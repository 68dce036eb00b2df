"""Rules of the layout: imports by import-linter (pyproject.toml), and what it can't see."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from xlt_ray import console

ROOT = Path(__file__).parent.parent
VAGUE = {"util", "utils", "helper", "helpers", "common", "manager"}


def sources() -> list[Path]:
    return [path for tree in ("xlt_ray", "jobs", "benchmarks") for path in sorted((ROOT / tree).rglob("*.py"))]


def starts_ray(tree: ast.Module) -> bool:
    """Whether a file calls `ray.init`, under whatever name it was imported."""
    modules, functions = {"ray"}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "ray" and alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module == "ray":
            functions |= {alias.asname or alias.name for alias in node.names if alias.name == "init"}
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    owners = [call.value for call in calls if isinstance(call, ast.Attribute) and call.attr == "init"]
    return any(isinstance(owner, ast.Name) and owner.id in modules for owner in owners) or any(
        isinstance(call, ast.Name) and call.id in functions for call in calls
    )


def test_imports_keep_their_contracts():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_one_module_starts_ray():
    found = [path.relative_to(ROOT).as_posix() for path in sources() if starts_ray(ast.parse(path.read_text()))]
    assert found == ["xlt_ray/job/cluster.py"]


def test_a_call_of_ray_init_is_seen_under_every_name():
    for source in ("import ray\nray.init()", "import ray as r\nr.init()", "from ray import init as go\ngo()"):
        assert starts_ray(ast.parse(source))
    assert not starts_ray(ast.parse("import ray\nray.data.init()"))


def test_names_say_what_is_inside():
    assert not [path for path in sources() if path.stem in VAGUE]


def test_every_stage_has_the_same_rooms():
    for stage in ("embed", "retrieval", "mine", "finetune", "tune", "translate", "study"):
        there = {path.name for path in (ROOT / "xlt_ray" / stage).iterdir()}
        rooms = {"config.py", "plan.py", "pipeline.py", "cost.py", "results.py", "section.html.jinja"}
        # The section of embed shows its metrics.json as it is.
        assert there >= rooms | ({"section.py"} if stage != "embed" else set()), stage


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "absent"),
    [
        ("report", "ray torch transformers mlflow matplotlib"),
        ("embed", "torch transformers mlflow matplotlib"),
        ("translate", "torch transformers mlflow matplotlib"),
        ("retrieval", "transformers mlflow matplotlib"),
        ("mine", "transformers mlflow matplotlib"),
        ("finetune", "transformers mlflow matplotlib peft"),
        ("tune", "transformers mlflow matplotlib peft"),
        ("study", "transformers mlflow matplotlib peft"),
    ],
)
def test_a_driver_imports_no_more_than_it_needs(job, absent):
    """All of them took 14 s of a core at every start, and 200 MB in each task that only decodes.

    Jobs import what they need inside of `main`; the first lines of it are run.
    """
    main = next(node for node in ast.parse(job_file(job).read_text()).body if isinstance(node, ast.FunctionDef))
    imports = [ast.unparse(node) for node in main.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(imports) > 4
    code = f"import sys, jobs.{job}\n" + "\n".join(imports) + f"\nprint(*set({absent.split()}) & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def job_file(job: str) -> Path:
    return ROOT / "xlt_ray" / "console" / f"{job}.py"


@pytest.mark.parametrize("job", console.JOBS)
def test_help_needs_nothing_that_computes(job):
    """Torch, Ray and pandas took 5 s of a core before the first line of help."""
    heavy = "ray torch transformers mlflow matplotlib pandas scipy datasets peft".split()
    code = (
        f"import sys, runpy; sys.argv = ['jobs/{job}.py', '--help']\n"
        f"try: runpy.run_path('jobs/{job}.py', run_name='__main__')\n"
        f"finally: print(*set({heavy}) & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert done.stdout.startswith(f"usage: jobs/{job}.py")


def test_every_job_has_a_script_and_a_module():
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == set(console.JOBS)
    assert {path.stem for path in job_file("x").parent.glob("*.py")} - {"__init__"} == set(console.JOBS)


def test_no_process_asks_which_gpus_are_visible():
    """Ray 2.60 shows the GPUs of a node to actors that booked none; `Pool.device` says what was booked."""
    assert not [path for path in sources() if path.parts[-3] == "xlt_ray" and "cuda.is_available" in path.read_text()]
