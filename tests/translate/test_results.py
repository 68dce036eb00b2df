"""The figures of metrics.json against sacrebleu, a hand-written edit distance and arithmetic."""

import copy
import io
import json
from collections import Counter

import pyarrow as pa
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from xlt_ray import languages
from xlt_ray.job.tracking import HEADLINES
from xlt_ray.store.schema import HYPOTHESIS
from xlt_ray.translate import results as tables
from xlt_ray.translate import scores as results
from xlt_ray.translate.comet import CometScores

SAID = ["the cat sat on the mat today", "a dog is running in the park", "", "it was raining all night long here"]
WANTED = ["the cat sat on the mat", "the dog is running in the park", "no one came", "it was raining all night long"]


def hypotheses(direction, said, wanted, text="spoken"):
    rows = [
        {
            "direction": direction,
            "utterance_id": f"u{number}",
            "sentence_id": f"s{number}",
            "text": text,
            "reference": reference,
            "hypothesis": hypothesis,
            "num_tokens": 3,
        }
        for number, (hypothesis, reference) in enumerate(zip(said, wanted, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=HYPOTHESIS)


def several(**by_name):
    """Tables by direction; a direction is written with an underscore."""
    named = {name.replace("_", "-"): texts for name, texts in by_name.items()}
    return {name: hypotheses(name, *texts) for name, texts in named.items()}


def edits(said, wanted):
    """Levenshtein distance of two lists, by its recursion."""
    before = list(range(len(wanted) + 1))
    for i, one in enumerate(said, 1):
        now = [i]
        for j, other in enumerate(wanted, 1):
            now.append(min(before[j] + 1, now[j - 1] + 1, before[j - 1] + (one != other)))
        before = now
    return before[-1]


def word_error_rate(said, wanted):
    return sum(edits(a.split(), b.split()) for a, b in zip(said, wanted, strict=True)) / sum(
        len(b.split()) for b in wanted
    )


def test_translations_are_scored_as_sacrebleu_does():
    chinese = ["今天天气很好我们去公园", "我想喝一杯热茶谢谢"], ["今天天气很好，我们去公园吧", "我想喝一杯茶谢谢你"]
    figures = results.summarise(several(fr_en=(SAID, WANTED), fr_zh=chinese), {})
    english = figures["directions"]["fr-en"]
    assert english["bleu"] == pytest.approx(sacrebleu.corpus_bleu(SAID, [WANTED]).score)
    assert english["chrf"] == pytest.approx(sacrebleu.corpus_chrf(SAID, [WANTED]).score)
    low, high = english["bleu_ci95"]
    assert 0 <= low < english["bleu"] < high <= 100
    assert (english["num"], english["empty_rate"]) == (4, 0.25)
    assert english["comet"] is english["wer"] is None
    bleu = sacrebleu.corpus_bleu(chinese[0], [chinese[1]], tokenize="zh").score
    assert figures["directions"]["fr-zh"]["bleu"] == pytest.approx(bleu)
    assert "tok:zh" in figures["directions"]["fr-zh"]["bleu_signature"]


def test_bleu_of_every_direction_is_there_where_a_search_asks_for_it():
    tables_ = several(fr_en=(SAID, WANTED), fr_fr=(SAID[::-1], WANTED))
    assert results.bleu(tables_) == {
        "fr-en": pytest.approx(sacrebleu.corpus_bleu(SAID, [WANTED]).score),
        "fr-fr": pytest.approx(sacrebleu.corpus_bleu(SAID[::-1], [WANTED]).score),
    }


def test_transcripts_have_an_error_rate_and_no_bleu():
    figures = results.summarise(several(fr_fr=(SAID, WANTED), zh_zh=(["你好吗", ""], ["你很好吗", "再见"])), {})
    french, chinese = figures["directions"]["fr-fr"], figures["directions"]["zh-zh"]
    assert french["wer"] == pytest.approx(word_error_rate(SAID, WANTED))
    assert chinese["cer"] == pytest.approx(3 / 6)
    assert (chinese["num"], chinese["empty_rate"]) == (2, 0.5)
    assert "bleu" not in french
    assert figures["means"] == {"transcription": {"wer": french["wer"], "cer": 0.5, "num_directions": 2}}


def test_english_is_compared_in_one_spelling():
    table = several(en_en=(["the colour"], ["the color"]))
    assert results.summarise(table, {})["directions"]["en-en"]["wer"] == 0.5
    assert results.summarise(table, {"colour": "color"})["directions"]["en-en"]["wer"] == 0


def test_means_count_every_direction_alike():
    french, italian = (SAID, WANTED), (WANTED[:2], WANTED[:2])
    figures = results.summarise(several(fr_en=french, it_en=italian, it_fr=italian, it_it=(["..."], ["..."])), {})
    bleu, chrf = (score(SAID, [WANTED]).score for score in (sacrebleu.corpus_bleu, sacrebleu.corpus_chrf))
    assert figures["means"]["en"] == pytest.approx(
        {"bleu": (bleu + 100) / 2, "chrf": (chrf + 100) / 2, "num_directions": 2}
    )
    assert figures["means"]["fr"]["bleu"] == pytest.approx(100)
    assert figures["directions"]["it-it"]["wer"] is None  # its reference says nothing, so there is no rate to average
    assert "transcription" not in figures["means"]


def test_files_are_gathered_by_direction_in_their_order():
    parts = [hypotheses(name, [said], ["b"]) for name, said in [("fr-en", "1"), ("it-en", "2"), ("fr-en", "3")]]
    gathered = results.by_direction(parts)
    assert {name: table["hypothesis"].to_pylist() for name, table in gathered.items()} == {
        "fr-en": ["1", "3"],
        "it-en": ["2"],
    }


def counted(**found):
    """A file of a run that detected languages, without rows."""
    metadata = {b"detected": json.dumps({name.replace("_", "-"): counts for name, counts in found.items()})}
    return HYPOTHESIS.empty_table().replace_schema_metadata(metadata)


def test_detected_languages_are_shares_over_all_files():
    files = [
        counted(kea_en={"pt": 2, "es": 1}, kea_kea={"gl": 1}),
        counted(),
        counted(kea_en={"es": 1, "gl": 1, "pt": 1}),
    ]
    shares = results.detected(files)
    assert shares == {"kea-en": {"pt": 3 / 6, "es": 2 / 6, "gl": 1 / 6}, "kea-kea": {"gl": 1}}
    assert list(shares["kea-en"]) == ["pt", "es", "gl"]
    assert results.detected([hypotheses("fr-en", SAID, WANTED)]) is None


@given(parts=st.lists(st.lists(st.sampled_from(["pt", "es", "gl"]), min_size=1), min_size=1, max_size=4))
def test_how_files_are_cut_changes_no_share(parts):
    whole = Counter(code for part in parts for code in part)
    shares = results.detected(counted(kea_en=Counter(part)) for part in parts)["kea-en"]
    assert shares == pytest.approx({code: number / whole.total() for code, number in whole.items()})
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def comet(segments, reason=None):
    system = sum(segments) / len(segments) if segments else None
    return CometScores(model="m", version="2.2.7", system=system, segments=segments, reason=reason)


def test_comet_is_the_mean_of_the_segments_of_a_direction():
    texts = (SAID[:2], WANTED[:2])
    table = several(fr_en=texts, it_en=texts, fr_fr=texts)
    table["de-en"] = hypotheses("de-en", *texts, text=None)
    rows, num_without = results.comet_rows(table)
    assert rows["direction"].to_pylist() == ["fr-en", "fr-en", "it-en", "it-en"]
    assert num_without == 2
    figures = results.summarise(table, {})
    results.add_comet(figures, rows["direction"].to_pylist(), comet((0.5, 0.7, 0.1, 0.3)), num_without)
    scores = {name: found.get("comet") for name, found in figures["directions"].items()}
    assert scores == {"fr-en": pytest.approx(0.6), "it-en": pytest.approx(0.2), "fr-fr": None, "de-en": None}
    assert "comet" not in figures["directions"]["fr-fr"]
    assert figures["comet"] == {"model": "m", "version": "2.2.7", "reason": None, "num_without_text": 2}


def test_scores_of_one_comet_outlive_another_that_can_not_score():
    """As a gated or misspelt model; nobody would get the first ones back without scoring again."""
    figures = results.summarise(several(fr_en=(SAID, WANTED)), {})
    results.add_comet(figures, ["fr-en"] * 4, comet((0.5, 0.7, 0.1, 0.3)), 0)
    before = copy.deepcopy(figures)
    results.add_comet(figures, ["fr-en"] * 4, comet(None, "no such model"), 0)
    assert figures == before


def test_without_comet_scores_the_reason_stands_there():
    table = several(fr_en=(SAID, WANTED))
    figures = results.summarise(table, {})
    results.add_comet(figures, ["fr-en"] * 4, comet(None, "no such model"), 0)
    assert figures["directions"]["fr-en"]["comet"] is None
    assert figures["comet"]["reason"] == "no such model"


def test_segments_must_be_as_many_as_rows():
    figures = results.summarise(several(fr_en=(SAID, WANTED)), {})
    with pytest.raises(ValueError, match="zip"):
        results.add_comet(figures, ["fr-en"] * 3, comet((0.1, 0.2)), 0)


BETTER = [WANTED[0], WANTED[1], "no one", WANTED[3]]


def bleu(said, wanted, **options):
    return sacrebleu.corpus_bleu(said, [wanted], **options).score


def test_what_is_kept_and_gained():
    """fr-en falls, it-en stays, fr-zh is new and rises from nothing, de-en is only in one of the two."""
    chinese = ["今天天气很好我们去公园"]
    after = several(fr_en=(SAID, WANTED), it_en=(BETTER, WANTED), fr_zh=(chinese, chinese), fr_fr=(SAID, WANTED))
    before = several(fr_en=(BETTER, WANTED), it_en=(BETTER, WANTED), fr_zh=(["a"], chinese), fr_fr=(BETTER, WANTED))
    after |= several(it_fr=(BETTER, WANTED))
    before |= several(it_fr=(BETTER, WANTED))
    before["de-en"] = hypotheses("de-en", SAID, WANTED)
    kept = results.compare(after, before, {})
    assert set(kept["directions"]) == {"fr-en", "it-en", "fr-zh", "fr-fr", "it-fr"}
    fell, stayed, new, heard, again = kept["directions"].values()
    low, high = bleu(SAID, WANTED), bleu(BETTER, WANTED)
    assert (fell["before"], fell["after"]) == pytest.approx((high, low))
    assert fell["difference"] == pytest.approx(low - high)
    assert fell["retained"] == pytest.approx(low / high)
    assert fell["difference_ci95"][0] <= low - high <= fell["difference_ci95"][1]
    assert (stayed["difference"], stayed["retained"], stayed["p_value"]) == (0, 1, 1)
    assert (new["before"], new["retained"]) == (0, None)
    assert again["before"] > 0
    assert again["retained"] is None  # no task of Whisper's own, so nothing that it could have kept
    assert new["after"] == pytest.approx(100)
    assert kept["backward_transfer"] == pytest.approx((low - high) / 2)
    assert kept["gain"] == pytest.approx(50)
    assert heard["measure"] == "wer"
    rates = word_error_rate(BETTER, WANTED), word_error_rate(SAID, WANTED)
    assert (heard["before"], heard["after"], heard["difference"]) == pytest.approx((*rates, rates[1] - rates[0]))
    assert "retained" not in heard


def test_only_utterances_of_both_are_compared():
    before = {"fr-en": hypotheses("fr-en", BETTER, WANTED).slice(1).take([2, 0, 1])}  # u3, u1, u2
    after = {"fr-en": hypotheses("fr-en", SAID, WANTED).slice(0, 3)}  # u0, u1, u2
    (scores,) = results.compare(after, before, {})["directions"].values()
    assert scores["num"] == 2
    assert scores["after"] == pytest.approx(bleu(SAID[1:3], WANTED[1:3]))
    assert scores["before"] == pytest.approx(bleu(BETTER[1:3], WANTED[1:3]))


def test_nothing_in_common_is_nothing_kept():
    after = several(fr_en=(SAID, WANTED))
    before = {"fr-en": hypotheses("fr-en", SAID, WANTED).slice(0, 0)}
    assert results.compare(after, before, {}) == {"directions": {}, "backward_transfer": None, "gain": None}


def test_a_direction_into_english_that_had_no_bleu_has_none_to_keep():
    before = several(fr_en=(["x", "y", "z", "w"], WANTED))
    kept = results.compare(several(fr_en=(SAID, WANTED)), before, {})
    assert kept["directions"]["fr-en"]["retained"] is None
    assert kept["gain"] is None


class Recorder:
    def __init__(self):
        self.values, self.model, self.tables = {}, {}, {}

    def metrics(self, values):
        self.values |= values

    def of_model(self, values):
        self.model |= values

    def table(self, columns, file):
        self.tables[file] = columns


def finished():
    """Figures of a run with everything: COMET, a comparison, a rate that is not there."""
    after = several(fr_en=(SAID, WANTED), fr_zh=(["你好"], ["你好"]), fr_fr=(SAID, WANTED), it_it=(["."], ["."]))
    figures = results.summarise(after, {})
    results.add_comet(figures, ["fr-en"] * 4, comet((0.5, 0.7, 0.1, 0.3)), 1)
    figures["kept"] = results.compare(after, several(fr_en=(BETTER, WANTED), fr_zh=(["你"], ["你好"])), {})
    figures["baseline"] = {"name": "first", "fingerprint": "f"}
    checkpoint = {"name": "tuned", "fingerprint": "g"}
    return figures | {"prompt": "tgt_translate", "source_prompt": None, "checkpoint": checkpoint}, after


def test_keys_line_up_before_and_after_tuning():
    figures, after = finished()
    recorder = Recorder()
    tables.log(recorder, figures, after, "test", ["fr-zh"])
    english, chinese, kept = figures["directions"]["fr-en"], figures["directions"]["fr-zh"], figures["kept"]
    expected = {"bleu/into_en": english["bleu"], "bleu/elsewhere": figures["means"]["zh"]["bleu"]}
    expected |= {"chrf/mean": (english["chrf"] + chinese["chrf"]) / 2, "comet/mean": english["comet"]}
    expected |= {"wer/mean": figures["means"]["transcription"]["wer"], "empty_rate/mean": 0.5 / 4}
    expected |= {f"kept/{key}": kept[key] for key in ("backward_transfer", "gain")}
    assert recorder.values == pytest.approx(expected)
    assert len(expected) == HEADLINES
    assert recorder.model == pytest.approx(
        {
            **{"test/bleu_learned": chinese["bleu"], "test/bleu_into_en": english["bleu"]},
            **{"test/comet": english["comet"], "test/gain": kept["gain"]},
            "test/backward_transfer": kept["backward_transfer"],
        }
    )
    columns = recorder.tables["scores.json"]
    rows = {name: {key: columns[key][at] for key in columns} for at, name in enumerate(columns["direction"])}
    assert {key: rows["fr-en"][key] for key in ("bleu", "chrf", "comet")} == {
        key: english[key] for key in ("bleu", "chrf", "comet")
    }
    assert [rows["fr-en"]["bleu_low"], rows["fr-en"]["bleu_high"]] == english["bleu_ci95"]
    assert rows["fr-fr"]["wer"] == figures["directions"]["fr-fr"]["wer"]
    assert (rows["fr-en"]["empty_rate"], rows["it-it"]["empty_rate"]) == (0.25, 0)
    assert rows["fr-en"]["retained"] == kept["directions"]["fr-en"]["retained"]
    assert rows["fr-en"]["p_value"] == kept["directions"]["fr-en"]["p_value"]
    assert [rows["fr-zh"]["comet"], rows["it-it"]["wer"], rows["fr-zh"]["retained"]] == [None, None, None]
    columns = recorder.tables["hypotheses.json"]
    assert columns["direction"] == ["fr-en"] * 4 + ["fr-zh"] + ["fr-fr"] * 4 + ["it-it"]
    assert columns["hypothesis"][0] == SAID[0]


def test_the_logged_hypotheses_are_few_and_of_every_direction():
    many = {name: hypotheses(name, ["a"] * 150, ["b"] * 150) for name in ("fr-en", "it-en")}
    recorder = Recorder()
    figures = results.summarise(many, {})
    tables.log(recorder, figures, many, "test", ())
    assert recorder.tables["hypotheses.json"]["direction"] == ["fr-en"] * 100 + ["it-en"] * 100
    tables.log(recorder, figures, {f"{number}-en": many["fr-en"] for number in range(201)}, "test", ())
    assert len(recorder.tables["hypotheses.json"]["direction"]) == 200


def lines(table):
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text().splitlines()


def line_of(table, name):
    (line,) = (line for line in lines(table) if f" {name} " in line)
    return line.replace("│", " ").split()


def test_the_tables_show_the_figures():
    figures, _ = finished()
    english, kept = figures["directions"]["fr-en"], figures["kept"]["directions"]["fr-en"]
    low, high = english["bleu_ci95"]
    shown = [f"{english['bleu']:.1f}", f"{low:.1f}", "to", f"{high:.1f}", f"{english['chrf']:.1f}", "0.400"]
    assert line_of(tables.as_table(figures), "fr-en") == ["fr-en", *shown, "25.0", "4"]
    rate = 100 * word_error_rate(SAID, WANTED)
    assert line_of(tables.as_table(figures), "fr-fr") == ["fr-fr", "WER", f"{rate:.1f}", "25.0", "4"]
    comparison = line_of(tables.kept_table(figures), "fr-en")
    numbers = [f"{kept['before']:.1f}", f"{kept['after']:.1f}", f"{kept['difference']:+.1f}"]
    assert comparison[:5] == ["fr-en", "BLEU", *numbers]
    assert comparison[-2:] == [f"{100 * kept['retained']:.0f}", "4"]
    assert sum("├" in line for line in lines(tables.as_table(figures))) == 2  # into en, into zh, transcripts
    text = "\n".join(lines(tables.kept_table(figures)))
    assert "against first" in text
    assert f"backward transfer {kept['difference']:+.2f}" in text


def test_one_text_has_no_interval_and_no_p():
    """Every draw from one text is that text: the bootstrap would show a certainty that nobody has."""
    figures, _ = finished()
    one = figures["directions"]["fr-zh"]
    assert one["num"] == 1
    assert line_of(tables.as_table(figures), "fr-zh")[:3] == ["fr-zh", f"{one['bleu']:.1f}", f"{one['chrf']:.1f}"]
    alone = {"directions": {"fr-zh": {**figures["kept"]["directions"]["fr-en"], "num": 1}}}
    compared = line_of(tables.kept_table(figures | {"kept": figures["kept"] | alone}), "fr-zh")
    assert len(compared) == len(["direction", "score", "before", "after", "difference", "kept", "texts"])


def by_prompt(prompt, **directions):
    figures = results.summarise(several(**directions), {})
    return figures | {"prompt": "tgt_transcribe", "source_prompt": prompt, "checkpoint": None}


def test_source_prompts_stand_side_by_side():
    """A row for each direction into English; BLEU with its interval and the error rate, prompt by prompt."""
    chinese, exact = (["你好吗"], ["你很好吗"]), (WANTED, WANTED)
    first = by_prompt("auto", kea_en=(SAID, WANTED), zh_en=exact, kea_fr=exact, kea_kea=(SAID, WANTED), zh_zh=chinese)
    second = by_prompt("es", kea_en=exact, zh_en=(SAID, WANTED), kea_fr=exact, kea_kea=exact)
    table, distances = tables.closing([first, second])
    low, high = first["directions"]["kea-en"]["bleu_ci95"]
    middling = [f"{bleu(SAID, WANTED):.1f}", f"({low:.1f}", "to", f"{high:.1f})"]
    best = ["100.0", "(100.0", "to", "100.0)"]
    rate = f"{100 * word_error_rate(SAID, WANTED):.1f}"
    assert line_of(table, "kea-en") == ["kea-en", *middling, rate, *best, "0.0"]
    assert line_of(table, "zh-en") == ["zh-en", *best, "CER", "25.0", *middling]
    assert not any("kea-fr" in line for line in lines(table))
    heads = " ".join(lines(table)[:4])
    assert heads.index("auto") < heads.index("es ")
    found = languages.LANGUAGES["kea"].typology
    about = [found.nearest, f"{found.distance:.3f}", str(found.observed), "of", "289"]
    assert line_of(distances, "kea-en") == ["kea-en", *about, f"{bleu(SAID, WANTED):.1f}", "100.0"]
    assert not any(name in line for line in lines(distances) for name in ("zh-en", "kea-fr"))


def test_source_prompts_of_one_text_have_no_interval():
    one = (SAID[:1], WANTED[:1])
    table, _ = tables.closing([by_prompt(prompt, kea_en=one, kea_kea=one) for prompt in ("auto", "es")])
    assert "to" not in line_of(table, "kea-en")


def test_four_source_prompts_fit_on_a_line():
    prompts = ("auto", "related", "en", "soft")
    table, _ = tables.closing([by_prompt(prompt, kea_en=(SAID, WANTED), kea_kea=(SAID, WANTED)) for prompt in prompts])
    assert len(line_of(table, "kea-en")) == 1 + len(prompts) * 5


def test_one_run_ends_with_its_own_tables():
    figures, _ = finished()
    titles = [table.title for table in tables.closing([figures])]
    assert titles == ["translations by direction, prompt tgt_translate", "against first"]
    (alone,) = tables.closing([figures | {"kept": None, "source_prompt": "auto"}])
    assert alone.title == "translations by direction, prompt tgt_translate, source prompt auto"


def test_the_outcome_in_one_sentence():
    figures, _ = finished()
    said = tables.sentence(figures)
    assert f"BLEU {figures['means']['en']['bleu']:.1f} into en over 1 directions" in said
    assert f"WER {100 * figures['means']['transcription']['wer']:.1f} %" in said
    assert "checkpoint tuned, prompt tgt_translate" in said
    assert "the untouched model" in tables.sentence(figures | {"checkpoint": None})
    assert said.endswith("prompt tgt_translate.")
    assert tables.sentence(figures | {"source_prompt": "soft"}).endswith("prompt tgt_translate, source prompt soft.")
