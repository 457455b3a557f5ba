"""Clips to listen to: the worst, those at the border, and one for every rule.

They are chosen by numbers and fetched by position, so a large ledger is not read twice. Audio comes
from the corpus, because a rejected clip is in no shard; where it can no longer be read, the example
stays without it.
"""

import base64
import io
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
from rapidfuzz.distance import Levenshtein

from pipeline.audio import AudioError
from pipeline.clips import load_sample
from pipeline.config import PipelineConfig
from pipeline.corpora import Utterance
from pipeline.duplicates import RowKey, row_key
from pipeline.files import AnyPath
from pipeline.filters import REASONS, error_rate
from pipeline.ledger import count_rows, read_table
from pipeline.normalizing import normalize
from pipeline.pieces import pieces
from pipeline.plan import Block, entries
from pipeline.schema import SAMPLE_RATE, Sample, from_dict
from pipeline.scoring import metric_of
from pipeline.sweep import Judged

logger = logging.getLogger(__name__)

PER_GROUP = 8
MAX_AUDIO_BYTES = 5_000_000
"""Of all examples together, before base64; the page stays below 10 MB."""

_MP3_COMPRESSION = 0.9  # libsndfile's scale from 0 to 1; about 24 kbit/s at 16 kHz


@dataclass(frozen=True, kw_only=True)
class DiffPart:
    """A piece of the comparison of reference and label."""

    kind: str
    """`equal`, `replace`, `delete` (only in the reference) or `insert` (only in the label)."""
    reference: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """A clip, or one utterance of a pack, with everything that is known of it, but its audio.

    What the teacher says of its own label (log-probability and the like) is of the whole pack.
    """

    group: str
    """`worst`, `border` or the name of a rule."""
    id: str
    corpus: str
    split: str
    language: str
    speaker: str
    duration_seconds: float
    rejected_by: tuple[str, ...]
    """Every rule that rejects it, the deciding one first; empty where it is kept."""
    rate: float | None
    metric: str
    substitutions: int | None
    deletions: int | None
    insertions: int | None
    orthographic_wer: float | None
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    language_probability: float
    reference: str
    label: str
    diff: tuple[DiffPart, ...]


def choose(judged: Judged, max_wer: float) -> list[tuple[str, int]]:
    """Return groups and positions of what to show; nothing is shown twice."""
    rates = np.nan_to_num(judged.rates, nan=-1.0)
    by_rate = np.argsort(-rates, kind="stable")
    chosen: dict[int, str] = {int(i): "worst" for i in by_rate[:PER_GROUP] if rates[i] > max_wer}
    free = judged.only_wer_may_reject & (rates > 0)
    for side in (rates <= max_wer, rates > max_wer):
        candidates = np.flatnonzero(free & side)
        near = candidates[np.argsort(np.abs(rates[candidates] - max_wer), kind="stable")]
        for i in near[: PER_GROUP // 2]:
            chosen.setdefault(int(i), "border")
    for position, reason in enumerate(REASONS):
        first = np.flatnonzero((judged.verdicts & np.uint32(1 << position)) != 0)
        if reason != "wer" and len(first):
            only = first[judged.verdicts[first] == np.uint32(1 << position)]
            chosen.setdefault(int(only[0] if len(only) else first[0]), reason)
    order = {"worst": 0, "border": 1}
    return sorted(
        ((group, i) for i, group in chosen.items()),
        key=lambda g: (order.get(g[0], 2), -rates[g[1]] if g[0] == "worst" else rates[g[1]], g[1]),
    )


def fetch(
    parts: Sequence[tuple[Block, AnyPath]], judged: Judged, positions: Sequence[int]
) -> dict[int, tuple[Sample, Block]]:
    """Return what was judged at each of the positions, with its block; `parts` are all of it."""
    rows = _rows(parts, {int(judged.rows[i]) for i in positions})
    found = {}
    for i in positions:
        row, block = rows[int(judged.rows[i])]
        first = int(np.searchsorted(judged.rows, judged.rows[i]))  # its pieces follow one another
        found[i] = pieces(row)[i - first], block
    return found


def _rows(
    parts: Sequence[tuple[Block, AnyPath]], wanted: set[int]
) -> dict[int, tuple[Sample, Block]]:
    """Return rows and their blocks by their number, counted over all parts in order."""
    found: dict[int, tuple[Sample, Block]] = {}
    start = 0
    for block, part in parts:
        count = count_rows(part)
        mine = [i for i in sorted(wanted) if start <= i < start + count]
        if mine:
            rows = read_table(part).take([i - start for i in mine]).to_pylist()
            found |= {i: (from_dict(Sample, row), block) for i, row in zip(mine, rows, strict=True)}
        start += count
    return found


def make_example(group: str, row: Sample, bits: int) -> Example:
    """Put together what is shown of a clip, as it was judged."""
    return Example(
        group=group,
        id=row.id,
        corpus=row.corpus,
        split=row.split,
        language=row.language,
        speaker=row.speaker,
        duration_seconds=round(row.duration_seconds, 3),
        rejected_by=tuple(reason for i, reason in enumerate(REASONS) if bits >> i & 1),
        rate=error_rate(row),
        metric=row.metric,
        substitutions=row.substitutions,
        deletions=row.deletions,
        insertions=row.insertions,
        orthographic_wer=row.orthographic_wer,
        avg_logprob=row.avg_logprob,
        no_speech_prob=row.no_speech_prob,
        compression_ratio=row.compression_ratio,
        temperature=row.temperature,
        language_probability=row.language_probability,
        reference=row.reference,
        label=row.pseudo_label,
        diff=compare(row.reference, row.pseudo_label, row.language),
    )


def compare(reference: str, label: str, language: str) -> tuple[DiffPart, ...]:
    """Align reference and label word by word, or by character where that is the metric.

    Words are compared as scoring does and shown as they are written; what spans several words when
    normalised ("twenty one" and "21") shows as a difference here, and is none in the score.
    """
    joint = "" if metric_of(reference, language) == "cer" else " "
    pair = [text.split() if joint else list(text) for text in (reference, label)]
    keys = [[normalize(word, language) for word in words] for words in pair]
    return tuple(
        DiffPart(
            kind=code.tag,
            reference=joint.join(pair[0][code.src_start : code.src_end]),
            label=joint.join(pair[1][code.dest_start : code.dest_end]),
        )
        for code in Levenshtein.opcodes(keys[0], keys[1])
    )


def audio_of(shown: Iterable[tuple[Sample, Block]], config: PipelineConfig) -> dict[RowKey, str]:
    """Return a data URI of MP3 for each clip whose audio can be read, within the budget."""
    by_block: defaultdict[str, list[tuple[Sample, Block]]] = defaultdict(list)
    for row, block in shown:
        by_block[block.id].append((row, block))
    found: dict[RowKey, str] = {}
    spent = 0
    for mine in by_block.values():
        _, block = mine[0]
        try:
            utterances = {e.id: e for e in entries(block, config) if isinstance(e, Utterance)}
        except (OSError, ValueError, RuntimeError) as error:  # moved, damaged or changed
            logger.warning("no audio of block %s in the report: %s", block.id, error)
            continue
        for row, _ in mine:
            try:
                data = _mp3(load_sample(row, utterances))
            except (AudioError, OSError) as error:
                logger.warning("no audio of clip %s in the report: %s", row.id, error)
                continue
            spent += len(data)
            if spent > MAX_AUDIO_BYTES:
                logger.warning("the report's audio is %d MB; the rest is left out", spent // 10**6)
                return found
            found[row_key(row)] = f"data:audio/mpeg;base64,{base64.b64encode(data).decode()}"
    return found


def _mp3(samples: np.ndarray) -> bytes:
    """Encode for browsers; unlike an Ogg stream, an MP3 has no random number in it."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        samples,
        SAMPLE_RATE,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=_MP3_COMPRESSION,
        bitrate_mode="CONSTANT",
    )
    return buffer.getvalue()
