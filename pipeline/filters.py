"""Reasons to drop a clip: opinions about the facts that the ledger keeps.

Each rule is a pure function of a row, its options, and what the context knows beyond the row. The
order of the rules is fixed and the first that applies is the reason, so the counts in the index add
up and mean the same in every run; a new threshold never needs the teacher. Rules of the whole clip
come before those of an utterance, because a clip may hold several utterances with scores of their
own, and what is wrong with the clip is wrong with each of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.context import NOTHING, Context
from pipeline.duplicates import row_key
from pipeline.limits import FilterConfig
from pipeline.normalizing import is_empty
from pipeline.schema import Sample
from pipeline.speaking_rate import RateBounds, characters_per_second, known_bounds
from pipeline.wording import count_repeats, is_foreign_script, is_shouted, is_stock_phrase

__all__ = [
    "CLIP_REASONS",
    "REASONS",
    "UTTERANCE_REASONS",
    "FilterConfig",
    "clip_bits",
    "clip_rejection",
    "error_rate",
    "rejection",
    "utterance_bits",
    "utterance_rejection",
    "verdicts",
]

NO_SPEECH_LOGPROB = -1.0  # Whisper: a confident transcript overrules the no-speech probability
MAX_REPEATS = 4  # "no, no, no, no" is said by people; a loop of Whisper's goes on
WEAK_NO_SPEECH_PROB = 0.3  # half of what Whisper takes for silence
WEAK_LOGPROB = -0.5  # a phrase heard a thousand times in training is written with confidence
WEAK_CHARACTERS_PER_SECOND = 3.0  # a fifth of how people speak

SLOW_MIN_SECONDS = 5.0  # shorter clips of one word are slow by nature
FAST_MIN_CHARACTERS = 15  # "Okay!" fits into a tenth of a second of audio

Rule = Callable[[Sample, FilterConfig, Context], bool]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one rule says of a row."""

    reason: str
    rejected: bool


def no_speech(row: Sample, config: FilterConfig, _: Context) -> bool:
    """No-speech probability above 0.6 and average log-probability below -1.0, as Whisper has it."""
    return row.no_speech_prob > config.max_no_speech_prob and row.avg_logprob < NO_SPEECH_LOGPROB


def truncated(row: Sample, _: FilterConfig, __: Context) -> bool:
    """The label stopped at the limit of tokens (Distil-Whisper: `max_label_length`)."""
    return row.truncated


def timestamp_disorder(row: Sample, _: FilterConfig, __: Context) -> bool:
    """Segments that end before they start, go back in time, or start after the audio's end.

    Whisper's timestamps only move forward; where they do not, decoding went astray. The end of the
    last segment may lie behind the audio's: Whisper hears 30 s, padded with silence.
    """
    before = 0.0
    for segment in row.segments:
        if segment.start < before or segment.end < segment.start:
            return True
        before = segment.start
    return before > row.duration_seconds


def language(row: Sample, config: FilterConfig, _: Context) -> bool:
    """An improbable language, or a label in a script that its language is not written in.

    Granary asks for a probability of 0.7, Emilia for 0.8; the probability is off by default,
    because a teacher of one language gives none. A reference in the same script excuses a label.
    """
    lowest = config.min_language_probability
    if lowest is not None and row.language_probability < lowest:
        return True
    return (
        config.foreign_script
        and is_foreign_script(row.pseudo_label, row.language)
        and not is_foreign_script(row.reference, row.language)
    )


def logprob(row: Sample, config: FilterConfig, _: Context) -> bool:
    """Average log-probability below `min_avg_logprob`; off by default (Whisper retries at -1.0)."""
    return config.min_avg_logprob is not None and row.avg_logprob < config.min_avg_logprob


def compression_ratio(row: Sample, config: FilterConfig, _: Context) -> bool:
    """Compresses better than 2.4, Whisper's sign of a loop, and is long enough to say so."""
    return (
        row.compression_ratio > config.max_compression_ratio
        and len(row.pseudo_label) >= config.compression_min_characters
    )


def repetition(row: Sample, _: FilterConfig, __: Context) -> bool:
    """A run of up to eight words comes more than four times, and oftener than in the reference.

    As MOSEL, and not by the share of different words, which Granary takes: that falls in any long
    plain sentence.
    """
    repeats = count_repeats(row.pseudo_label, row.language)
    return repeats > MAX_REPEATS and repeats > count_repeats(row.reference, row.language)


def hallucination(row: Sample, config: FilterConfig, _: Context) -> bool:
    """The whole label is a stock phrase, and little else speaks for speech.

    Weak evidence is a no-speech probability above 0.3, a log-probability below -0.5, or fewer than
    3 characters per second. Peers look for prefixes and drop "Thank you Senator ...".
    """
    if not config.stock_phrases:
        return False
    weak = (
        row.no_speech_prob > WEAK_NO_SPEECH_PROB
        or row.avg_logprob < WEAK_LOGPROB
        or characters_per_second(row.pseudo_label, row.duration_seconds)
        < WEAK_CHARACTERS_PER_SECOND
    )
    return (
        weak
        and is_stock_phrase(row.pseudo_label, row.language)
        and not is_stock_phrase(row.reference, row.language)
    )


def no_reference(row: Sample, config: FilterConfig, _: Context) -> bool:
    """The corpus has no references (no metric) and `require_reference` asks for one."""
    return not row.metric and config.require_reference


def empty_reference(row: Sample, _: FilterConfig, __: Context) -> bool:
    """The corpus has references and this one says nothing (Distil-Whisper)."""
    return bool(row.metric) and is_empty(row.reference, row.language)


def empty_label(row: Sample, _: FilterConfig, __: Context) -> bool:
    """The teacher heard nothing, or wrote nothing but punctuation."""
    return is_empty(row.pseudo_label, row.language)


def too_short(row: Sample, config: FilterConfig, _: Context) -> bool:
    """Shorter than `min_seconds`; off by default (Emilia 3 s, Moonshine 4 s, NeMo Curator 2 s)."""
    return row.duration_seconds < config.min_seconds


def too_long(row: Sample, config: FilterConfig, _: Context) -> bool:
    """Longer than `max_seconds`; off by default, no clip is longer than Whisper's 30 s."""
    return config.max_seconds is not None and row.duration_seconds > config.max_seconds


def uppercase(row: Sample, _: FilterConfig, __: Context) -> bool:
    """All upper case in a script with case, and more than one word (Distil-Whisper, OLMoASR)."""
    return is_shouted(row.pseudo_label)


def speaking_rate(row: Sample, config: FilterConfig, context: Context) -> bool:
    """More or fewer characters per second than people say in this language.

    NeMo Curator drops above 40; Emilia outside the quartiles of a file, which a short file does not
    have. Clips under 5 s cannot be too slow, labels under 15 characters not too fast.
    """
    if config.speaking_rate == "off":
        return False
    bounds = known_bounds(row.language)
    if config.speaking_rate == "ledger":
        bounds = context.rates.get(row.language, bounds)
    return _is_out_of(bounds, row)


def disagreement(row: Sample, config: FilterConfig, context: Context) -> bool:
    """A second teacher says something else; off by default (Granary v2 keeps up to 20 %)."""
    if config.max_disagreement is None:
        return False
    rate = context.disagreement(row)
    return rate is not None and rate > config.max_disagreement


def unlikely(row: Sample, config: FilterConfig, context: Context) -> bool:
    """Its evidence is that of labels which references reject; for clips without a reference only.

    Off by default; it needs a model fitted on clips with references.
    """
    model = context.acceptance
    if model is None or row.metric:
        return False
    return model.probability(row) < model.threshold(config.acceptance_precision)


def duplicate(row: Sample, config: FilterConfig, context: Context) -> bool:
    """An earlier utterance has the same audio and the same label; off by default."""
    return config.drop_duplicates and row_key(row) in context.duplicates


def contaminated(row: Sample, _: FilterConfig, context: Context) -> bool:
    """Ten words in a row stand in an evaluation set too (OLMoASR); needs `evaluation_sets`."""
    index = context.contamination
    return index is not None and (
        index.overlaps(row.pseudo_label, row.language)
        or index.overlaps(row.reference, row.language)
    )


def wer(row: Sample, config: FilterConfig, _: Context) -> bool:
    """Its error rate is above `max_wer` (Distil-Whisper: 10 %), and it has more errors than budget.

    The rate is CER where the language is judged by characters. A rate exactly at the limit is kept.
    """
    rate = error_rate(row)
    if rate is None or rate <= config.max_wer:
        return False
    return not (config.error_budget and _is_within_budget(row, config))


_CLIP_RULES: tuple[Rule, ...] = (
    no_speech,
    truncated,
    timestamp_disorder,
    language,
    logprob,
    compression_ratio,
    repetition,
    hallucination,
)
_REFERENCE_RULES: tuple[Rule, ...] = (no_reference, empty_reference)
_UTTERANCE_RULES: tuple[Rule, ...] = (
    *_REFERENCE_RULES,
    empty_label,
    too_short,
    too_long,
    uppercase,
    speaking_rate,
    disagreement,
    unlikely,
    duplicate,
    contaminated,
    wer,
)
_RULES = _CLIP_RULES + _UTTERANCE_RULES

CLIP_REASONS = tuple(rule.__name__ for rule in _CLIP_RULES)
"""Every reason to drop a whole clip, in the order in which they are tried."""
UTTERANCE_REASONS = tuple(rule.__name__ for rule in _UTTERANCE_RULES)
"""Every reason to drop one utterance of a clip that is fit as a whole, in their order."""
REASONS = CLIP_REASONS + UTTERANCE_REASONS
"""Every reason there is, in the order in which they are tried."""


def rejection(row: Sample, config: FilterConfig, context: Context = NOTHING) -> str | None:
    """Return why a clip of one utterance is unfit for training, or None to keep it."""
    return clip_rejection(row, config, context) or utterance_rejection(row, config, context)


def clip_rejection(row: Sample, config: FilterConfig, context: Context = NOTHING) -> str | None:
    """Return why a whole clip is unfit, one of `CLIP_REASONS`, or None."""
    if row.split not in config.splits:
        return None
    return _first(_CLIP_RULES, row, config, context)


def utterance_rejection(
    row: Sample, config: FilterConfig, context: Context = NOTHING
) -> str | None:
    """Return why one utterance is unfit, one of `UTTERANCE_REASONS`, or None.

    `row` is a clip of one utterance, or what a longer clip says of one of its utterances.
    """
    rules = _UTTERANCE_RULES if row.split in config.splits else _REFERENCE_RULES
    return _first(rules, row, config, context)


def verdicts(
    clip: Sample, piece: Sample, config: FilterConfig, context: Context = NOTHING
) -> list[Verdict]:
    """Return what every rule says of a piece of a clip, also those behind the first that rejects.

    Rules of the whole clip judge the clip; a clip of one utterance is its own piece.
    """
    judged = clip.split in config.splits
    return [
        Verdict(
            reason=rule.__name__,
            rejected=(judged or rule in _REFERENCE_RULES)
            and rule(clip if rule in _CLIP_RULES else piece, config, context),
        )
        for rule in _RULES
    ]


def clip_bits(row: Sample, config: FilterConfig, context: Context = NOTHING) -> int:
    """Return what the rules about a whole clip say of a row; bit i is of rule i of `REASONS`."""
    bits, bit = 0, 1
    for rule in _CLIP_RULES:
        if rule(row, config, context):
            bits |= bit
        bit <<= 1
    return bits


def utterance_bits(row: Sample, config: FilterConfig, context: Context = NOTHING) -> int:
    """Return what the rules about one utterance say; bit i is of rule i of `REASONS`.

    `row` is of a filtered split, and as for `utterance_rejection`.
    """
    bits, bit = 0, 1 << len(_CLIP_RULES)
    for rule in _UTTERANCE_RULES:
        if rule(row, config, context):
            bits |= bit
        bit <<= 1
    return bits


def error_rate(row: Sample) -> float | None:
    """Return the rate that judges a row; None where there is no reference to judge it by."""
    return row.cer if row.metric == "cer" else row.wer


def _first(
    rules: tuple[Rule, ...], row: Sample, config: FilterConfig, context: Context
) -> str | None:
    for rule in rules:
        if rule(row, config, context):
            return rule.__name__
    return None


def _is_out_of(bounds: RateBounds, row: Sample) -> bool:
    rate = characters_per_second(row.pseudo_label, row.duration_seconds)
    if rate > bounds.highest:
        return len(row.pseudo_label) >= FAST_MIN_CHARACTERS
    return rate < bounds.lowest and row.duration_seconds >= SLOW_MIN_SECONDS


def _is_within_budget(row: Sample, config: FilterConfig) -> bool:
    """Tell whether a reference has no more errors than every one may have, and is no mere word."""
    errors = (row.substitutions or 0) + (row.deletions or 0) + (row.insertions or 0)
    rate = error_rate(row)
    if not rate or errors > config.error_budget:
        return False
    return round(errors / rate) >= config.error_budget_min_length
