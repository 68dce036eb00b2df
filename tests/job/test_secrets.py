"""No password in a line, a log or a tag."""

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.errors import UserError
from xlt_ray.job import cli, secrets
from xlt_ray.job.mlflow_run import flatten
from xlt_ray.job.settings import Job

words = st.text("abcdefghijklmnopqrstuvwxyz0123456789:@!$%_-", min_size=8, max_size=20)


@given(words, words)
def test_what_stands_before_the_at_of_a_uri_is_gone(user, password):
    text = secrets.redacted(f"request to https://{user}:{password}@host/x failed, s3://{user}:{password}@bucket/y too")
    assert text == "request to https://***@host/x failed, s3://***@bucket/y too"


@pytest.mark.parametrize(
    "text", ["file:///a@b", "hf://datasets/me/x@main/y", "me@host", "/runs/a@b", "s3://bucket/a@b"]
)
def test_other_signs_stay(text):
    assert secrets.redacted(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "no https://b.s3.amazonaws.com/a.wav?X-Amz-Credential=AKIA%2F1&X-Amz-Expires=60&X-Amz-Signature=6fe here",
            "no https://b.s3.amazonaws.com/a.wav?X-Amz-Credential=***&X-Amz-Expires=60&X-Amz-Signature=*** here",
        ),
        (
            "https://x.blob.core.windows.net/a.wav?sv=2022&sig=a%2Bb",
            "https://x.blob.core.windows.net/a.wav?sv=2022&sig=***",
        ),
        ("postgresql://db/x?user=ann&password=hunter22", "postgresql://db/x?user=ann&password=***"),
        ("https://host/a.wav?speaker=1&take=2", "https://host/a.wav?speaker=1&take=2"),
    ],
)
def test_what_signs_an_address_is_gone(text, shown):
    assert secrets.redacted(text) == shown


def test_secrets_of_the_environment_are_gone_alone_too(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:pa/ss@word@db/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrX")
    assert "ss@word" not in secrets.redacted("authentication failed for pa/ss@word, wJalrX")
    assert "wJalrX" not in secrets.redacted("authentication failed for pa/ss@word, wJalrX")
    assert flatten({"corpus": "manifest:s3://k:s3cret@b/x.tsv"}) == {"corpus": "manifest:s3://***@b/x.tsv"}


@pytest.mark.parametrize("name", ["root", "corpus"])
def test_a_setting_with_a_password_is_refused_and_not_shown(name):
    job = dataclasses.replace(Job(), **{name: "s3://key:hunter22@bucket/x"})
    with pytest.raises(UserError, match=f"--{name} holds a user or password") as caught:
        secrets.refuse_passwords(job)
    assert "hunter22" not in str(caught.value)
    secrets.refuse_passwords(Job(root="s3://bucket/x", corpus="hf:me/corpus@main"))


def broken(job: Job) -> None:
    """Fail as a client of a server does."""
    raise RuntimeError(f"{job.name}: API request to https://ann:hunter22@host/api failed")


def test_errors_and_tracebacks_show_none(capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:hunter22@host")
    with pytest.raises(SystemExit) as stop:
        cli.run(broken, {"demo": dict}, [])
    line = capsys.readouterr().err
    log = line.rsplit(" ", 1)[-1].strip()
    assert stop.value.code == 1
    with open(log) as file:
        traceback = file.read()
    assert "API request" in traceback
    assert "hunter22" not in line + traceback


def test_long_words_take_no_time():
    started = time.perf_counter()
    assert secrets.redacted("x" * 1_000_000) == "x" * 1_000_000
    assert time.perf_counter() - started < 5  # hours, where each letter may begin a URI


def test_every_spelling_of_a_scheme_is_known():
    assert secrets.redacted("s3+x.y-z://a:b@c, manifest:s3://a:b@c") == "s3+x.y-z://***@c, manifest:s3://***@c"


def test_keys_of_aws_have_slashes():
    assert secrets.redacted("no s3://AKIA:wJal/K7M/bPx+Ri@bucket/x here") == "no s3://***@bucket/x here"
    assert secrets.redacted("http://host:8080/a@b") == "http://host:8080/a@b"
    with pytest.raises(UserError, match="--root holds a user or password"):
        secrets.refuse_passwords(Job(root="s3://AKIA:wJal/K7M/bPx+Ri@bucket/x"))


def test_many_uris_take_no_time():
    started = time.perf_counter()
    secrets.redacted("a://b:" * 20_000)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_tokens_of_the_hub_are_gone(monkeypatch, name):
    monkeypatch.setenv(name, "hf_abcdef")
    assert secrets.redacted("401 for hf_abcdef") == "401 for ***"
