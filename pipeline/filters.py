"""Reasons to drop a clip: opinions about the facts that the ledger keeps.

The order of the rules is fixed and the first that applies is the reason, so the counts in the index
add up and mean the same in every run. Everything here looks at one row and its config only, which
is why a new threshold never needs the teacher.
"""

from dataclasses import dataclass

from pipeline.schema import Sample
from pipeline.scoring import CHARACTER_LANGUAGES, language_code, normalize

REASONS = (
    "empty_reference",
    "no_speech",
    "empty_label",
    "truncated",
    "uppercase",
    "repetition",
    "compression_ratio",
    "wer",
)
"""Every reason there is, in the order in which they are tried."""

_NO_SPEECH_LOGPROB = -1.0  # Whisper: a confident transcript overrules the no-speech probability
_MAX_REPEATS = 4  # "no, no, no, no" is said by people; a loop of Whisper's goes on
_LONGEST_LOOP = 8  # words or characters; what repeats in longer pieces compresses well


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What a clip must fulfil to be trained on."""

    max_wer: float = 0.10
    """Highest error rate that is kept (CER where a language is judged by characters); 0.1 is 10 %.
    A clip exactly at the limit is kept."""
    max_compression_ratio: float = 2.4
    """Highest ratio of a label's bytes to its bytes compressed; Whisper's own limit."""
    max_no_speech_prob: float = 0.6
    """Above this, a clip whose label is also improbable is not speech; Whisper's own limit."""
    splits: tuple[str, ...] = ("train",)
    """Splits whose labels are judged. The others lose only clips without a reference: an evaluation
    set must not be chosen by the model it evaluates."""

    def __post_init__(self) -> None:
        """Refuse limits that no clip, or every clip, would pass."""
        for name, limit in (
            ("max_wer", self.max_wer),
            ("max_no_speech_prob", self.max_no_speech_prob),
        ):
            if not limit >= 0:
                raise ValueError(f"filter.{name} is {limit}; give a fraction of at least 0")
        if not self.max_compression_ratio > 0:
            raise ValueError(
                f"filter.max_compression_ratio is {self.max_compression_ratio}; "
                "give a number above 0"
            )
        if self.max_no_speech_prob > 1:
            raise ValueError(
                f"filter.max_no_speech_prob is {self.max_no_speech_prob}; "
                "give a probability up to 1"
            )


def rejection(row: Sample, config: FilterConfig) -> str | None:
    """Return why a clip is unfit for training, one of `REASONS`, or None to keep it."""
    return clip_rejection(row, config) or utterance_rejection(row, config)


def clip_rejection(row: Sample, config: FilterConfig) -> str | None:
    """Return what is wrong with the label of a clip as a whole, whoever spoke in it."""
    if row.split not in config.splits or not normalize(row.reference, row.language):
        return None
    if row.no_speech_prob > config.max_no_speech_prob and row.avg_logprob < _NO_SPEECH_LOGPROB:
        return "no_speech"
    if not normalize(row.pseudo_label, row.language):
        return "empty_label"
    if row.truncated:
        return "truncated"
    if _is_shouted(row.pseudo_label):
        return "uppercase"
    if _repeats(row.pseudo_label, row.language) > max(
        _MAX_REPEATS, _repeats(row.reference, row.language)
    ):
        return "repetition"
    if row.compression_ratio > config.max_compression_ratio:
        return "compression_ratio"
    return None


def utterance_rejection(row: Sample, config: FilterConfig) -> str | None:
    """Return what is wrong with one utterance and its piece of a label."""
    if not normalize(row.reference, row.language):
        return "empty_reference"
    if row.split not in config.splits:
        return None
    rate = row.wer if row.metric == "wer" else row.cer
    assert rate is not None, f"{row.id} has a reference but no {row.metric!r}"
    return "wer" if rate > config.max_wer else None


def _is_shouted(label: str) -> bool:
    """Tell whether a label is all upper case, a failure mode of large-v3; "NASA" alone is not.

    Scripts without case have no such words.
    """
    return label.isupper() and sum(word.isupper() for word in label.split()) > 1


def _repeats(text: str, language: str) -> int:
    """Count how often the worst loop of a text repeats in a row; 1 where nothing does."""
    text = normalize(text, language)
    by_characters = language_code(language) in CHARACTER_LANGUAGES
    units = list(text.replace(" ", "")) if by_characters else text.split()
    worst = 1
    for size in range(1, _LONGEST_LOOP + 1):
        run = 0  # units in a row that equal the one `size` before
        for i in range(size, len(units)):
            run = run + 1 if units[i] == units[i - size] else 0
            worst = max(worst, run // size + 1)
    return worst
