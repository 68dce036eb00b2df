"""The program `xlt-ray`, and the help of every job."""

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import worlds

from xlt_ray import console
from xlt_ray.job import commands
from xlt_ray.job.flags import flags_of, spellings
from xlt_ray.presets import PRESETS, presets_of
from xlt_ray.store.provenance import command

ROOT = Path(__file__).parents[2]


@pytest.fixture
def typed(monkeypatch, capsys):
    """What `xlt-ray` prints for some words, with its exit code."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/xlt-ray", *words])
        try:
            console.main()
        except SystemExit as stop:
            return capsys.readouterr(), stop.code or 0
        return capsys.readouterr(), 0

    return run


def test_the_program_is_installed_by_that_name():
    (script,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items()
    assert EntryPoint(*script, "console_scripts").load() is console.main
    assert script[0] == "xlt-ray"


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_alone_it_lists_every_job_on_one_line(typed, words):
    (out, err), code = typed(*words)
    lines = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
    assert [job for job, _ in lines] == list(console.JOBS)
    assert set(console.JOBS) == set(worlds.JOBS)
    assert all(about.endswith((".", "?")) for _, about in lines)
    assert (err, code) == ("", 0)


def test_an_unknown_job_names_the_nearest(typed):
    (_, err), code = typed("retrieve", "--help")
    assert code == 2
    assert err.startswith("error: unknown job 'retrieve'; did you mean retrieval? valid: embed, ")


def test_a_mistake_of_a_job_is_one_line(typed):
    assert typed("retrieval", "--preset", "nope") == (
        ("", f"error: unknown preset 'nope'; valid: {', '.join(PRESETS)}\n"),
        2,
    )


def test_a_job_runs_to_its_end(typed, tmp_path):
    (out, _), code = typed("report", "--root", str(tmp_path), "--name", "mine")
    assert (code, (tmp_path / "report/mine/index.html").is_file()) == (0, True)
    empty = f"nothing is finished under {tmp_path}; give the --root that the other jobs wrote to"
    assert out == f"report: {tmp_path}/report/mine/index.html\n{empty}\n"


@pytest.mark.parametrize("job", console.JOBS)
def test_help_shows_the_basic_settings_and_help_all_every_one(typed, job):
    (short, _), first = typed(job, "--help")
    (long, _), second = typed(job, "--help-all")
    assert (first, second) == (0, 0)
    flags = spellings(flags_of(worlds.JOBS[job]))
    shown, every = ({f for f in flags if re.search(rf"{re.escape(f)}(?![\w.-])", text)} for text in (short, long))
    assert every == flags
    basic = {f"--{name}" for name in console._module(job).BASIC}
    assert basic <= shown
    assert basic <= flags
    assert {"--root", "--name", "--config"} <= shown
    if job != "report":
        assert len(shown) < 0.75 * len(every)
        assert "--embed.rows-per-shard" not in shown
    for text in (short, long):
        listed = re.findall(r"^  (\w+) +[A-Z]", text.partition("Presets\n")[2].partition("╭")[0], re.MULTILINE)
        assert tuple(listed) == presets_of(job)


def test_help_has_the_values_of_the_preset(typed):
    (out, _), _ = typed("embed", "--preset", "fleurs_large_v2", "--help")
    assert "(default: openai/whisper-large-v2)" in " ".join(out.replace("│", " ").split())


def test_examples_are_as_the_user_types_them(typed):
    (out, _), _ = typed("retrieval", "--help")
    examples = out.partition("╭")[0]
    assert "xlt-ray retrieval --preset fleurs_large_v2 --dry-run" in examples
    assert "ray job submit --working-dir . -- python jobs/retrieval.py" in examples  # a checkout is what is sent
    assert examples.count("python jobs/") == 1
    script = subprocess.run([sys.executable, "jobs/retrieval.py", "-h"], cwd=ROOT, capture_output=True, text=True)
    assert "xlt-ray" not in script.stdout


def test_what_is_printed_to_do_next_is_by_the_same_program(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/xlt-ray", "retrieval", "--name", "a b"])
    assert command() == "xlt-ray retrieval --name 'a b'"
    words = shlex.split(commands.report_command("/r", "x"))
    assert words[words.index("report") :] == ["report", "--root", "/r", "--name", "x"]
    assert words[: words.index("report")] == commands.program("xlt-ray")
    assert "python jobs" not in " ".join(words)
