"""Sentences for the embedded corpus, written by this project and free to use.

`grammar.yaml` is a small grammar of everyday English over some nine hundred words. A grammar rather
than a book, because a teacher of five million weights can master its vocabulary, and because
sentences can be drawn without end, so that those of the test part occur nowhere else.
"""

import random
import re
from pathlib import Path

import yaml

GRAMMAR: dict[str, str] = yaml.safe_load(
    (Path(__file__).parent / "grammar.yaml").read_text(encoding="utf-8")
)
_ALTERNATIVES = {name: [a.strip() for a in rule.split(" | ")] for name, rule in GRAMMAR.items()}
_SLOT = re.compile(r"\{(\w+)\}")


def sentence(rng: random.Random) -> str:
    """Draw one sentence with capital letter and final punctuation."""
    text = _expand("sentence", rng)
    return text[0].upper() + text[1:]


def _expand(rule: str, rng: random.Random) -> str:
    return _SLOT.sub(lambda slot: _expand(slot[1], rng), rng.choice(_ALTERNATIVES[rule]))


def sentences(count: int, seed: int, min_words: int, max_words: int) -> list[str]:
    """Draw `count` different sentences of the given lengths, the same for the same seed."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        text = sentence(rng)
        if min_words <= len(text.split()) <= max_words:
            found[text] = None
    return list(found)


def vocabulary() -> set[str]:
    """Return every word that the grammar can say, in lower case."""
    rules = _SLOT.sub(" ", " ".join(GRAMMAR.values()))
    return set(re.findall(r"[a-z']+", rules.lower()))
