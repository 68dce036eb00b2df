import pytest

from xlt_ray.config import StudyJob
from xlt_ray.errors import UserError
from xlt_ray.runtime import parse
from xlt_ray.study.plan import retrieval_job, run_name


def test_every_language_but_the_target_is_a_source():
    assert StudyJob(languages=("ru", "zh", "en")).sources == ("en", "ru")
    assert parse(StudyJob, ["--study.sources", "it,en"]).sources == ("en", "it")


def test_names_of_what_a_study_makes():
    job = StudyJob(name="mine", languages=("en", "fr", "de"))
    assert run_name(job, "fr") == "mine-fr-zh"
    found = retrieval_job(job)
    assert (found.name, found.languages, found.retrieval.embeddings) == ("mine", ("de", "en", "fr"), "mine")


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
        parse(StudyJob, flags)
    assert "\n" not in str(error.value)
