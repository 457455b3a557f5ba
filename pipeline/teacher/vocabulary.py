"""What an engine must know of a Whisper's tokens, found by name in the model's own files.

Ids differ between releases (99 or 100 languages, English-only, trimmed vocabularies), so nothing is
counted on but the names. An engine without transformers reads the same three files.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tokenizers

from pipeline.teacher.spelling import byte_pieces, spell

TIMESTAMP_SECONDS = 0.02

_MULTILINGUAL_SIZE = 51865
"""As OpenAI tells its models apart where the generation settings do not."""
_MAX_INITIAL_TIMESTAMP = 50
_NEVER_SAID = (
    "<|startoftranscript|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|nocaptions|>",
)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Token ids by role, and the bytes that each id writes."""

    pieces: tuple[bytes, ...]
    """One for each row of the output layer; empty for special tokens and timestamps."""
    start: int
    end: int
    transcribe: int
    no_timestamps: int
    first_timestamp: int
    no_speech: int | None
    """Whisper v1 and v2 call it nocaptions on the Hub, later models nospeech."""
    languages: dict[str, int]
    """Code and token; empty for a teacher that knows English only."""
    suppressed: tuple[int, ...]
    """Never said: the model's list of non-speech symbols, and special tokens."""
    suppressed_first: tuple[int, ...]
    """Not said as the first token."""
    max_initial_timestamp: int
    """Latest start of the first segment, in steps of `TIMESTAMP_SECONDS`."""

    @property
    def size(self) -> int:
        """Rows of the output layer."""
        return len(self.pieces)

    def prompt(self, language: str, *, timestamps: bool) -> list[int]:
        """Return the task prefix.

        Raises:
            ValueError: the teacher does not know the language.
        """
        prompt = [self.start]
        self.check_language(language)
        if self.languages:
            prompt += [self.languages[language], self.transcribe]
        return prompt if timestamps else [*prompt, self.no_timestamps]

    def check_language(self, language: str) -> None:
        """Refuse a language that the teacher does not know."""
        if self.languages and language not in self.languages:
            raise ValueError(
                f"the teacher does not know language {language!r}; "
                f"it knows {', '.join(sorted(self.languages))}"
            )
        if not self.languages and language != "en":
            raise ValueError(f"the teacher knows English only, not {language!r}")

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; timestamps and special tokens write nothing."""
        return spell(self.pieces[token] for token in tokens)


def read_vocabulary(
    tokenizer: tokenizers.Tokenizer, config: dict[str, Any], generation: dict[str, Any]
) -> Vocabulary:
    """Find the roles of a Whisper's tokens.

    Args:
        tokenizer: the model's.
        config: its `config.json`.
        generation: its `generation_config.json`; empty where it has none.

    Raises:
        ValueError: tokenizer and model do not belong together, or are not Whisper's.
    """
    ids = tokenizer.get_vocab(with_added_tokens=True)
    needed = ("<|startoftranscript|>", "<|endoftext|>", "<|transcribe|>", "<|notimestamps|>")
    missing = [name for name in needed if name not in ids]
    if missing:
        raise ValueError(
            f"the teacher's tokenizer lacks {', '.join(missing)}: it is not a Whisper tokenizer"
        )
    size = int(config["vocab_size"])
    pieces = byte_pieces(tokenizer)
    if len(pieces) > size:
        raise ValueError(
            f"the tokenizer has {len(pieces)} tokens, but the model's output only {size}: "
            "they are of different models. Give a folder with the model's own tokenizer.json."
        )
    first_timestamp = ids.get("<|0.00|>", ids["<|notimestamps|>"] + 1)
    pieces[first_timestamp:] = [b""] * (len(pieces) - first_timestamp)
    special = [ids[name] for name in _NEVER_SAID if name in ids]
    suppressed = _first_given("suppress_tokens", generation, config)
    begin = generation.get("max_initial_timestamp_index")
    return Vocabulary(
        pieces=(*pieces, *[b""] * (size - len(pieces))),
        start=ids["<|startoftranscript|>"],
        end=ids["<|endoftext|>"],
        transcribe=ids["<|transcribe|>"],
        no_timestamps=ids["<|notimestamps|>"],
        first_timestamp=first_timestamp,
        no_speech=ids.get("<|nospeech|>", ids.get("<|nocaptions|>")),
        languages=_languages(ids, size, generation),
        suppressed=tuple(sorted({*suppressed, *special})),
        suppressed_first=tuple(_first_given("begin_suppress_tokens", generation, config)),
        max_initial_timestamp=_MAX_INITIAL_TIMESTAMP if begin is None else begin,
    )


def _first_given(name: str, *settings: dict[str, Any]) -> list[int]:
    """Return a list from the first settings that have it; -1, OpenAI's shorthand, is no token."""
    found = next((s[name] for s in settings if s.get(name) is not None), [])
    return [token for token in found if token >= 0]


def _languages(ids: dict[str, int], size: int, generation: dict[str, Any]) -> dict[str, int]:
    """Return the languages of a multilingual model: what its settings say, else by place."""
    if not generation.get("is_multilingual", size >= _MULTILINGUAL_SIZE):
        return {}
    if known := generation.get("lang_to_id"):
        return {token.strip("<|>"): index for token, index in known.items()}
    stop = min(ids.get("<|translate|>", ids["<|transcribe|>"]), ids["<|transcribe|>"])
    first = ids["<|startoftranscript|>"] + 1
    return {token.strip("<|>"): index for token, index in ids.items() if first <= index < stop}
