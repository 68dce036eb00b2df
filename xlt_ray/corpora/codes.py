"""Language codes of corpora in Whisper's spelling: `que` is `qu`, `zh-CN` and `cmn` are `zh`."""

from __future__ import annotations

from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from xlt_ray.schema import language_of

_ISO_639_3 = """
eng en | zho zh | cmn zh | chi zh | deu de | ger de | spa es | rus ru | kor ko | fra fr | fre fr | jpn ja | por pt
tur tr | pol pl | cat ca | nld nl | dut nl | ara ar | swe sv | ita it | ind id | hin hi | fin fi | vie vi | heb he
ukr uk | ell el | gre el | msa ms | may ms | ces cs | cze cs | ron ro | rum ro | dan da | hun hu | tam ta | nor no
tha th | urd ur | hrv hr | bul bg | lit lt | lat la | mri mi | mao mi | mal ml | cym cy | wel cy | slk sk | slo sk
tel te | fas fa | per fa | pes fa | lav lv | lvs lv | ben bn | srp sr | aze az | slv sl | kan kn | est et | ekk et
mkd mk | mac mk | bre br | eus eu | baq eu | isl is | ice is | hye hy | arm hy | nep ne | npi ne | mon mn | khk mn
bos bs | kaz kk | sqi sq | alb sq | swa sw | swh sw | glg gl | mar mr | pan pa | sin si | khm km | sna sn | yor yo
som so | afr af | oci oc | kat ka | geo ka | bel be | tgk tg | snd sd | guj gu | amh am | yid yi | lao lo | uzb uz
fao fo | hat ht | pus ps | pbt ps | tuk tk | nno nn | mlt mt | san sa | ltz lb | mya my | bur my | bod bo | tib bo
tgl tl | fil tl | mlg mg | asm as | tat tt | lin ln | hau ha | bak ba | jav jw | jv jw | sun su | nob no | nb no
iw he | in id | ji yi | que qu | quy qu | quz qu | gle ga | aym ay | grn gn | xho xh | zul zu | wol wo | ibo ig
lug lg | kir ky | ori or | ory or | orm om | nya ny | kur ku | gla gd | epo eo | fry fy | ast ast | kea kea
"""
_WHISPER = dict(pair.split() for line in _ISO_639_3.strip().splitlines() for pair in line.split(" | "))


def whisper_code(code: str) -> str:
    """A language code without its region, in Whisper's spelling where it knows the language, else with two letters."""
    language = language_of(code)
    return _WHISPER.get(language, language)


def named_language(name: str) -> str:
    """As `whisper_code`, of the name of a language too: Lhotse's recipes write `English` as well as `en`."""
    return str(TO_LANGUAGE_CODE.get(name.lower()) or whisper_code(name))
