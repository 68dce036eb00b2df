"""FLEURS: 102 languages reading the same 2009 sentences of FLoRes (arXiv 2205.12446, CC-BY-4.0).

Reads either form in which the data set is distributed, below one root directory:

    cmn_hans_cn/test/0000.parquet ...               Parquet branch (`refs/convert/parquet`)
    cmn_hans_cn/fleurs-test-00000-of-00002.parquet  the same, older names (`fleurs-test.parquet` when in one part)
    data/cmn_hans_cn/test.tsv, audio/test.tar.gz    original; also without `data/`, or extracted to `audio/test/`

In Parquet the splits are `train validation test`, in the original `train dev test`. Both spellings are accepted.
"""

from __future__ import annotations

import dataclasses
import functools
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from xlt_ray.corpora.tables import (
    HUB_SPLITS,
    canonical_split,
    check_languages,
    parquet_rows,
    parquet_shards,
    text_lines,
)
from xlt_ray.errors import UserError
from xlt_ray.languages import code_of
from xlt_ray.store import storage
from xlt_ray.store.schema import Utterance

_CONFIGS = """
af_za am_et ar_eg as_in ast_es az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph ckb_iq cmn_hans_cn cs_cz cy_gb da_dk de_de
el_gr en_us es_419 et_ee fa_ir ff_sn fi_fi fil_ph fr_fr ga_ie gl_es gu_in ha_ng he_il hi_in hr_hr hu_hu hy_am id_id
ig_ng is_is it_it ja_jp jv_id ka_ge kam_ke kea_cv kk_kz km_kh kn_in ko_kr ky_kg lb_lu lg_ug ln_cd lo_la lt_lt luo_ke
lv_lv mi_nz mk_mk ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no ne_np nl_nl nso_za ny_mw oc_fr om_et or_in pa_in pl_pl
ps_af pt_br ro_ro ru_ru sd_in sk_sk sl_si sn_zw so_so sr_rs sv_se sw_ke ta_in te_in tg_tj th_th tr_tr uk_ua umb_ao
ur_pk uz_uz vi_vn wo_sn xh_za yo_ng yue_hant_hk zu_za
"""

CODES = {config: code_of(config) for config in _CONFIGS.split()}
"""Language code, in Whisper's spelling, of each of the 102 configurations; 19 have no Whisper token (`kea`, `ast`)."""


def fleurs(source: str, languages: Sequence[str], split: str | None) -> Iterator[Utterance]:
    """The recordings of some languages, without audio.

    `text` is FLEURS' `raw_transcription`, the sentence as written in FLoRes. It is the reference of translations into
    its language, and BLEU and COMET need case and punctuation, which `transcription` lacks. WER is computed on
    normalised text anyway. `translations` holds the text of the same sentence in the other `languages`, if they have
    it: every language lacks some sentences.

    `speaker` is None, because FLEURS only gives the speaker's gender.

    Args:
        source: root directory of the corpus, a local path or a URI.
        languages: codes as Whisper spells them (`zh`), or FLEURS' configurations (`cmn_hans_cn`).
        split: `train`, `dev` (or `validation`) or `test`; `test` when None.

    Raises:
        UserError: for a language or a split that FLEURS does not have, or that is not below `source`.
    """
    source, part = storage.absolute(source), canonical_split(split)
    configs = {code: config for config, code in CODES.items()}
    codes = dict.fromkeys(CODES.get(language, language) for language in languages)
    check_languages("FLEURS", codes, configs)
    tables = {code: _find(source, configs[code], part) for code in codes}
    return _utterances(tables, part)


@dataclasses.dataclass(frozen=True, slots=True)
class _Recording:
    sentence: str
    file: str
    text: str | None
    audio: str
    member: str


_Table = Callable[[], Iterator[_Recording]]


def _utterances(tables: Mapping[str, _Table], split: str) -> Iterator[Utterance]:
    # All text of all languages is read before the first row: 102 languages x 1,500 training sentences = 50 MB.
    texts = {code: {row.sentence: row.text for row in table()} for code, table in tables.items()}
    for code, table in tables.items():
        others = [(other, known) for other, known in texts.items() if other != code]
        for row in table():
            yield Utterance(
                utterance_id=f"fleurs-{code}-{split}-{posixpath.splitext(row.file)[0]}",
                sentence_id=f"fleurs-{row.sentence}",
                language=code,
                audio=row.audio,
                member=row.member,
                text=row.text,
                translations={other: text for other, known in others if (text := known.get(row.sentence))},
                split=split,
            )


def _find(source: str, config: str, split: str) -> _Table:
    for folder in (storage.join(source, config), storage.join(source, "data", config)):
        if shards := parquet_shards(folder, split):
            return functools.partial(_from_parquet, shards)
        if storage.exists(tsv := storage.join(folder, f"{split}.tsv")):
            return functools.partial(_from_tsv, tsv, _sound(storage.join(folder, "audio", split)), split)
    hub = HUB_SPLITS[split]
    raise UserError(
        f"no FLEURS {config} {split} in {source!r}: looked for {config}/{hub}/*.parquet, {config}/fleurs-{hub}.parquet "
        f"and {config}/{split}.tsv, each also below data/; give the directory that holds {config} or data"
    )


def _sound(folder: str) -> str:
    """The directory of extracted recordings or, if there is none, the archive."""
    for place in (folder, f"{folder}.tar.gz"):
        if storage.exists(place):
            return place
    raise UserError(f"FLEURS recordings are missing: looked for {folder}/ and {folder}.tar.gz")


def _from_parquet(shards: Iterable[str]) -> Iterator[_Recording]:
    for shard in shards:
        rows = parquet_rows(shard, ("id", "path", "raw_transcription"))
        for number, row in enumerate(rows):
            # `path` is where the file lay when the branch was written; only its last part means anything.
            if not row["path"]:
                raise UserError(f"{shard}, line {number + 1}: no path; its last part is the name of the recording")
            file = posixpath.basename(row["path"])
            yield _Recording(str(row["id"]), file, row["raw_transcription"] or None, shard, str(number))


def _from_tsv(tsv: str, sound: str, split: str) -> Iterator[_Recording]:
    # Columns: id, file name, raw transcription, transcription, characters, samples, gender. No header, no quoting.
    for number, line in enumerate(text_lines(tsv), start=1):
        try:
            sentence, file, text, *_ = line.rstrip("\r\n").split("\t")
        except ValueError:
            raise UserError(f"{tsv} line {number} is not a row of FLEURS: {line[:80]!r}") from None
        if sound.endswith(".tar.gz"):
            yield _Recording(sentence, file, text, sound, f"{split}/{file}")
        else:
            yield _Recording(sentence, file, text, storage.join(sound, file), "")
