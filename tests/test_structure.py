"""The rules of the layout that a machine can judge: who imports whom, who may know Ray, what a file may be called."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "xlt_ray"
TREES = (PACKAGE, "jobs", "benchmarks", "tests")

SPINE = {"config", "presets", "schema", "errors", "storage", "artifacts", "runtime", "tracking", "whisper", "corpora"}
SPINE |= {"adapter", "model_cache", "model_files", "model_shapes", "model_tokens", "model_write", "ctranslate2_file"}
SPINE |= {"ctranslate2", "decoder", "shards", "metrics", "export", "figures", "estimate"}
STAGES = {"embed", "retrieval", "finetune", "tune", "study", "translate", "report"}
# Stages meet only in files. These two run another stage many times over, so they call it.
EXCEPTIONS = {"tune": {"finetune", "translate"}, "study": {"finetune", "translate"}}

# Modules by their last name, and all of corpora: to be read, tested and used without a cluster.
PURE = {"schema", "storage", "config", "presets", "whisper", "ctranslate2", "doctor", "audio", "encoder", "index"}
PURE |= {"adapter", "model_cache", "model_files", "model_shapes", "model_tokens", "model_write", "ctranslate2_file"}
PURE |= {"seqsim", "baselines", "ranking", "pairs", "tiles", "collect", "render", "plots"}
PURE |= {"decoder", "shards", "metrics", "export", "decode", "comet", "keeping", "recipe", "pareto", "training"}
PURE |= {"ewc", "loop", "batch", "learner", "examples", "board", "context"}
PURE |= {"figures", "estimate", "halving", "space", "unseen", "trials", "transfer", "plane", "matrix"}
VAGUE = {"util", "utils", "helper", "helpers", "common"}


def name_of(path: Path, root: Path) -> str:
    """The dotted name under which `path` is imported."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, package: str) -> Iterator[tuple[str, int]]:
    """Every dotted name that a file imports, at any depth, with its line: `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("__import__", "import_module"):
            yield from ((text, node.lineno) for text in literals(node))


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def literals(node: ast.Call) -> Iterator[str]:
    for argument in node.args[:1]:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def starts_ray(tree: ast.Module) -> Iterator[int]:
    """The lines that call `ray.init`, under whatever name it was imported."""
    modules, functions = {"ray"}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "ray" and alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module == "ray":
            functions |= {alias.asname or alias.name for alias in node.names if alias.name == "init"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            owner = function.value if isinstance(function, ast.Attribute) and function.attr == "init" else None
            if (isinstance(owner, ast.Name) and owner.id in modules) or getattr(function, "id", None) in functions:
                yield node.lineno


def part_of(name: str) -> str:
    """The spine module or stage that a dotted name of the package belongs to; empty for the package and for others."""
    parts = name.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 and parts[1] in SPINE | STAGES else ""


def is_pure(name: str) -> bool:
    parts = name.split(".")
    return parts[0] == PACKAGE and (parts[-1] in PURE or "corpora" in parts)


def crosses(importer: str, imported: str) -> bool:
    """Whether the part `importer` must not import the part `imported`."""
    if imported not in STAGES or importer == imported:
        return False
    return imported not in EXCEPTIONS.get(importer, set())


def violations(root: Path) -> list[str]:
    """Every broken rule below `root` as `file:line: what`, in the order of the files."""
    paths = [path for tree in TREES for path in sorted((root / tree).rglob("*.py"))]
    return [f"{path.relative_to(root)}:{found}" for path in paths for found in _violations(path, root)]


def _violations(path: Path, root: Path) -> Iterator[str]:
    name, tree = name_of(path, root), ast.parse(path.read_text())
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    if path.stem in VAGUE:
        yield f"1: {path.stem} says nothing about what is inside"
    if name.startswith(f"{PACKAGE}.") and not part_of(name):
        yield f"1: {name} is neither of the spine nor a stage"
    for imported, line in imports(tree, package):
        if name.split(".")[0] == PACKAGE and crosses(part_of(name), part_of(imported)):
            yield f"{line}: {part_of(name) or PACKAGE} imports the stage {part_of(imported)}"
        if imported.split(".")[0] == "jobs":
            yield f"{line}: imports {imported}, and nothing imports jobs"
        if imported.split(".")[0] == "ray" and is_pure(name):
            yield f"{line}: the pure module {name} imports ray"
    if not name.startswith("tests.") and name != f"{PACKAGE}.runtime":
        yield from (f"{line}: calls ray.init, which is for {PACKAGE}.runtime" for line in starts_ray(tree))


def test_the_tree_keeps_the_rules() -> None:
    assert violations(ROOT) == []


def test_every_name_of_the_rules_is_there() -> None:
    """A module that was renamed would otherwise leave its rule without a word."""
    names = [name_of(path, ROOT) for path in (ROOT / PACKAGE).rglob("*.py")]
    assert {part_of(name) for name in names} - {""} == (SPINE | STAGES)
    assert {name.split(".")[-1] for name in names} >= PURE


def test_pure_modules_load_without_ray() -> None:
    """What the syntax does not show: a pure module must not reach Ray through what it imports either."""
    pure = sorted(filter(is_pure, (name_of(path, ROOT) for path in (ROOT / PACKAGE).rglob("*.py"))))
    code = f"import importlib, sys; sys.modules['ray'] = None; [importlib.import_module(name) for name in {pure}]"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


BAD = {
    "xlt_ray/storage.py": ("def read():\n    from ray import data\n", "2: the pure module xlt_ray.storage imports ray"),
    "xlt_ray/corpora/fleurs.py": (
        "import ray.data as rd\n",
        "1: the pure module xlt_ray.corpora.fleurs imports ray",
    ),
    "xlt_ray/finetune/ewc.py": (
        "import importlib\nray = importlib.import_module('ray')\n",
        "2: the pure module xlt_ray.finetune.ewc imports ray",
    ),
    "xlt_ray/__init__.py": ("from .embed import encoder\n", "1: xlt_ray imports the stage embed"),
    "xlt_ray/tracking.py": ("from xlt_ray import report\n", "1: tracking imports the stage report"),
    "xlt_ray/corpora/__init__.py": ("from ..embed.index import find\n", "1: corpora imports the stage embed"),
    "xlt_ray/translate/pipeline.py": ("from ..finetune import loop\n", "1: translate imports the stage finetune"),
    "xlt_ray/tune/search.py": ("import xlt_ray.embed.pipeline\n", "1: tune imports the stage embed"),
    "xlt_ray/mining.py": ("", "1: xlt_ray.mining is neither of the spine nor a stage"),
    "xlt_ray/embed/utils.py": ("", "1: utils says nothing about what is inside"),
    "xlt_ray/embed/pipeline.py": (
        "import ray as cluster\ncluster.init()\n",
        "2: calls ray.init, which is for xlt_ray.runtime",
    ),
    "benchmarks/pool.py": ("from ray import init as go\ngo()\n", "2: calls ray.init, which is for xlt_ray.runtime"),
    "jobs/report.py": ("from jobs import embed\n", "1: imports jobs.embed, and nothing imports jobs"),
    "tests/test_jobs.py": ("import jobs.embed\n", "1: imports jobs.embed, and nothing imports jobs"),
}


@pytest.mark.parametrize("file", BAD)
def test_a_bad_file_is_found(tmp_path: Path, file: str) -> None:
    source, message = BAD[file]
    write(tmp_path, {file: source})
    assert violations(tmp_path) == [f"{file}:{message}"]


def test_a_good_tree_is_let_through(tmp_path: Path) -> None:
    files = {
        "xlt_ray/__init__.py": "",
        "xlt_ray/runtime.py": "import ray\nray.init()\n",
        "xlt_ray/config.py": "import rayon\nfrom . import errors\n",
        "xlt_ray/report/retrieval.py": "from xlt_ray import storage\nfrom xlt_ray.report import render\n",
        "xlt_ray/embed/pipeline.py": "import ray\nfrom .encoder import Encoder\nfrom ..whisper import load\n",
        "xlt_ray/study/matrix.py": "from xlt_ray.finetune import trainer\nfrom xlt_ray import translate\n",
        "jobs/embed.py": "from xlt_ray.embed import pipeline\n",
        "tests/ray/test_embed.py": "import ray\nray.init(address='local')\n",
    }
    write(tmp_path, files)
    assert violations(tmp_path) == []


def write(root: Path, files: dict[str, str]) -> None:
    for file, source in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(source)
