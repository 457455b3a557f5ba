"""Whisper's languages: their names, and which of them are written without spaces between words."""

import functools
import re

CHARACTER_LANGUAGES = frozenset({"ja", "zh", "yue", "th", "lo", "km", "my"})
"""Judged by CER: their words are not separated by spaces."""

# Whisper's languages by code and English name, as in its tokenizer; some have several names.
_CODES_AND_NAMES = """
    af:afrikaans, am:amharic, ar:arabic, as:assamese, az:azerbaijani, ba:bashkir, be:belarusian,
    bg:bulgarian, bn:bengali, bo:tibetan, br:breton, bs:bosnian, ca:catalan, ca:valencian, cs:czech,
    cy:welsh, da:danish, de:german, el:greek, en:english, es:castilian, es:spanish, et:estonian,
    eu:basque, fa:persian, fi:finnish, fo:faroese, fr:french, gl:galician, gu:gujarati, ha:hausa,
    haw:hawaiian, he:hebrew, hi:hindi, hr:croatian, ht:haitian, ht:haitian creole, hu:hungarian,
    hy:armenian, id:indonesian, is:icelandic, it:italian, ja:japanese, jw:javanese, ka:georgian,
    kk:kazakh, km:khmer, kn:kannada, ko:korean, la:latin, lb:letzeburgesch, lb:luxembourgish,
    ln:lingala, lo:lao, lt:lithuanian, lv:latvian, mg:malagasy, mi:maori, mk:macedonian,
    ml:malayalam, mn:mongolian, mr:marathi, ms:malay, mt:maltese, my:burmese, my:myanmar, ne:nepali,
    nl:dutch, nl:flemish, nn:nynorsk, no:norwegian, oc:occitan, pa:panjabi, pa:punjabi, pl:polish,
    ps:pashto, ps:pushto, pt:portuguese, ro:moldavian, ro:moldovan, ro:romanian, ru:russian,
    sa:sanskrit, sd:sindhi, si:sinhala, si:sinhalese, sk:slovak, sl:slovenian, sn:shona, so:somali,
    sq:albanian, sr:serbian, su:sundanese, sv:swedish, sw:swahili, ta:tamil, te:telugu, tg:tajik,
    th:thai, tk:turkmen, tl:tagalog, tr:turkish, tt:tatar, uk:ukrainian, ur:urdu, uz:uzbek,
    vi:vietnamese, yi:yiddish, yo:yoruba, yue:cantonese, zh:chinese, zh:mandarin
"""
_CODES = {
    name.strip(): code.strip()
    for code, name in (entry.split(":") for entry in _CODES_AND_NAMES.split(","))
}

# Thai and Lao; Burmese with its extensions; Khmer; kana; Han with its extensions.
_UNSPACED_LETTER = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@functools.cache
def language_code(language: str) -> str:
    """Turn "en", "EN", "en-US" or "english" into "en".

    A code of two or three letters is taken as it is, known to Whisper or not.

    Raises:
        ValueError: it is neither a code nor one of Whisper's language names.
    """
    name = language.strip().lower()
    if name in _CODES:
        return _CODES[name]
    code = name.replace("_", "-").split("-")[0]
    if code.isascii() and code.isalpha() and 2 <= len(code) <= 3:
        return code
    raise ValueError(
        f"language {language!r} is not known; give a code such as 'en' or 'pt-BR', "
        "or the English name that Whisper uses, such as 'portuguese'"
    )


def is_unspaced(text: str) -> bool:
    """Tell whether most letters of a text are of a script without spaces between words."""
    if text.isascii():
        return False
    letters = sum(map(str.isalpha, text))
    return 2 * len(_UNSPACED_LETTER.findall(text)) > letters > 0
