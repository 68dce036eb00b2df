import pytest

from xlt_ray.errors import UserError
from xlt_ray.job.cli import parse
from xlt_ray.job.settings import identity
from xlt_ray.presets import PRESETS
from xlt_ray.retrieval.config import RetrievalJob
from xlt_ray.store import artifacts
from xlt_ray.study.config import StudyConfig, StudyJob
from xlt_ray.study.plan import find_retrieval, retrieval_job, run_name


def test_every_language_but_the_target_is_a_source():
    assert StudyJob(languages=("ru", "zh", "en")).sources == ("en", "ru")
    assert parse(StudyJob, ["--study.sources", "it,en"], PRESETS).sources == ("en", "it")


def test_names_of_what_a_study_makes():
    job = StudyJob(name="mine", languages=("en", "fr", "de"))
    assert run_name(job, "fr") == "mine-fr-zh"
    found = retrieval_job(job)
    assert (found.name, found.languages, found.retrieval.embeddings) == ("mine", ("en", "fr", "de"), "mine")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--study.sources", "en,zh"], "zh is among --study.sources"),
        (["--study.sources", "en"], "two sources or more; there is en"),
        (["--study.sources", "en,de"], "names de, which is not in --languages"),
        (["--study.sources", "en,en"], "names a language twice"),
        (["--study.seed", "-1"], "--study.seed is -1"),
        (["--finetune.keep", "es-en", "--finetune.ewc-lambda", "1"], "a study trains without it"),
    ],
)
def test_a_mistake_is_one_line(flags, message):
    with pytest.raises(UserError, match=message) as error:
        parse(StudyJob, flags, PRESETS)
    assert "\n" not in str(error.value)


def test_the_retrieval_that_a_study_makes_is_that_of_jobs_retrieval():
    """Or else one of the two would find its name taken by the other."""
    flags = ["--name", "same", "--languages", "en,fr"]
    mine, theirs = retrieval_job(parse(StudyJob, flags, PRESETS)), parse(RetrievalJob, flags, PRESETS)
    assert identity(mine.retrieval) == identity(theirs.retrieval)
    assert (mine.name, sorted(mine.languages)) == (theirs.name, sorted(theirs.languages))


def test_a_retrieval_of_other_embeddings_is_refused(tmp_path):
    root = str(tmp_path)
    embeddings = artifacts.start(root, "embed", "speech", {"languages": ["en", "fr"]}, {})
    job = StudyJob(root=root, name="mine", languages=("en", "fr"))
    assert find_retrieval(job, embeddings) is None
    for name, of in (("mine", embeddings.fingerprint), ("other", "else")):
        made = artifacts.start(root, "retrieval", name, {"embeddings": of, "languages": ["en", "fr"]}, {})
        made.write_json("manifest.json", {})
    assert find_retrieval(job, embeddings).name == "mine"
    named = StudyJob(root=root, languages=("en", "fr"), study=StudyConfig(retrieval="other"))
    with pytest.raises(UserError, match="is of other embeddings than 'speech'"):
        find_retrieval(named, embeddings)
    wide = StudyJob(root=root, name="mine", languages=("en", "fr", "de"))
    with pytest.raises(UserError, match="has no pair with de"):
        find_retrieval(wide, embeddings)
