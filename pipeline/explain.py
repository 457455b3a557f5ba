"""The whole story of a clip or utterance: where it came from, what every rule says, where it is."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rapidfuzz.process import extract

from pipeline.clips import first_of_pack
from pipeline.context import Context
from pipeline.corpora.utterance import RULE_STAGE
from pipeline.cutting import decide
from pipeline.files import AnyPath, path_of
from pipeline.filters import REASONS, error_rate, verdicts
from pipeline.labels import ledger_context, read_run
from pipeline.layout import Layout
from pipeline.ledger import Failure, LedgerRow, read_failures, read_ledger, read_table
from pipeline.limits import FilterConfig
from pipeline.plan import Block, Plan
from pipeline.schema import Sample, sample_key
from pipeline.shards import read_record, read_shard

NUM_SUGGESTIONS = 3


def explain(output: str | AnyPath, wanted: str, **overrides: Any) -> list[str]:
    """Return one text for each clip or utterance of that id; an id can stand in several splits.

    A clip that was put together after the filter has one text for each of its utterances.

    `overrides` are options of the filter as they might be; the verdicts are those that a run with
    them would give, while the shards are what they are.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: no clip and no utterance has the id, and the message names the nearest ones; a
            ledger part is damaged or of another release; or an option is out of range.
    """
    layout = Layout(path_of(output))
    config, plan = read_run(layout)
    limits = dataclasses.replace(config.filter, **overrides)
    context = ledger_context(limits, plan, layout)
    texts: list[str] = []
    ids: list[str] = []
    labelled = [b for b in plan.blocks if layout.ledger(plan.keys.label_key, b.id).is_file()]
    for block, found, failures, seen in _search(labelled, plan, layout, wanted):
        ids += seen
        texts += [
            _label_text(row, wanted, block, layout, limits, context, overrides) for row in found
        ]
        texts += [_failure_text(f, block) for f in failures if wanted in (f.id, *f.utterance_ids)]
    if members := _packed_later(labelled, plan, layout, wanted) if not texts else []:
        return [text for member in members for text in explain(output, member, **overrides)]
    if not texts:
        nearest = [match for match, *_ in extract(wanted, ids, limit=NUM_SUGGESTIONS)]
        hint = f"; the nearest are {', '.join(map(repr, nearest))}" if nearest else ""
        if missing := len(plan.blocks) - len(labelled):
            hint += f"; {missing} of {len(plan.blocks)} blocks are not labelled yet: run again"
        raise ValueError(f"{output} has no clip or utterance with the id {wanted!r}{hint}")
    return texts


def _search(
    blocks: Sequence[Block], plan: Plan, layout: Layout, wanted: str
) -> Iterator[tuple[Block, list[LedgerRow], list[Failure], list[str]]]:
    """Yield each block with its rows of that id, its failures, and all ids that it has."""
    key = plan.keys.label_key
    for block in blocks:
        part = layout.ledger(key, block.id)
        ids = read_table(part, ["id", "utterances"]).to_pylist()
        named = [{row["id"], *(u["id"] for u in row["utterances"])} for row in ids]
        found: list[LedgerRow] = []
        if any(wanted in names for names in named):
            rows, _ = read_ledger(part)
            found = [row for row, names in zip(rows, named, strict=True) if wanted in names]
        failures = read_failures(layout.failures(key, block.id))
        names = [name for names in named for name in sorted(names)]
        yield block, found, failures, names + [f.id for f in failures]


def _packed_later(blocks: Sequence[Block], plan: Plan, layout: Layout, wanted: str) -> list[str]:
    """Return the utterances of a pack that only the shards know, or none where there is no such."""
    first = first_of_pack(wanted)
    if first is None:
        return []
    for block, found, *_ in _search(blocks, plan, layout, first):
        shard = layout.shard(block.id)
        if found and shard.is_file():
            for sample, _ in read_shard(shard):
                if sample.id == wanted:
                    return [utterance.id for utterance in sample.utterances]
    return []


def _label_text(
    row: LedgerRow,
    wanted: str,
    block: Block,
    layout: Layout,
    config: FilterConfig,
    context: Context,
    overrides: dict[str, Any],
) -> str:
    """Say what the filter makes of a label, or of an utterance's part of it, and on what evidence.

    Of a pack that is asked for by its own id every utterance is explained.
    """
    decided = [
        (piece, why)
        for piece, why in decide(row, config, context)
        if wanted == row.id or any(u.id == wanted for u in piece.utterances)
    ]
    shown = decided[0][0] if len(decided) == 1 else row
    filtered = "" if row.split in config.splits else f" (split {row.split} is not filtered)"
    supposed = ", ".join(f"{name} {value}" for name, value in overrides.items())
    lines = [
        f"{shown.id}: {_fate([why for _, why in decided])}{filtered}"
        + (f", if {supposed}" if supposed else ""),
        f"  corpus     {row.corpus}, split {row.split}, language {row.language}, "
        f"licence {row.licence}",
        f"  audio      {shown.recording}, "
        f"{shown.duration_seconds:.2f} s from {shown.start_seconds:.2f} s",
        f"  reference  {shown.reference}",
        f"  label      {shown.pseudo_label}",
    ]
    if len(row.utterances) > 1:
        places = ", ".join(f"{u.id} from {u.start:.2f} s" for u in row.utterances)
        together = "" if row.metric else "; judged as one, because they have no references"
        lines.append(f"  pack       {row.id}: {places}{together}")
    for piece, why in decided:
        if len(decided) > 1:
            lines.append(
                f"  utterance  {piece.id}, {piece.duration_seconds:.2f} s, "
                f"{f'cut out: {why}' if why else 'kept'}: {piece.reference!r}, "
                f"label {piece.pseudo_label!r}"
            )
        lines += _verdict_lines(row, piece, config, context)
    if config.switched_off:
        off = [reason for reason in REASONS if reason in config.switched_off]
        lines.append(f"  off        {', '.join(off)}")
    lines.append(
        f"  evidence   avg_logprob {row.avg_logprob}, no_speech_prob {row.no_speech_prob}, "
        f"compression_ratio {row.compression_ratio}, temperature {row.temperature}, "
        f"truncated {str(row.truncated).lower()}"
        + (" (of the whole pack)" if len(row.utterances) > 1 else "")
    )
    kept = any(why is None for _, why in decided)
    if kept and error_rate(shown) is None and row.split in config.splits:
        lines.append("  note       without a reference; only the rules that need none judged it")
    lines.append(f"  teacher    {row.teacher} at {row.teacher_revision}")
    lines.append(f"  shard      {_shard_text(shown, block, layout)}")
    return "\n".join(lines)


def _fate(reasons: Sequence[str | None]) -> str:
    """Say how the pieces of a clip end together."""
    against = [reason for reason in reasons if reason]
    if not against:
        return "kept"
    if len(against) < len(reasons):
        return f"kept, but for {len(against)} of {len(reasons)} utterances"
    return f"rejected, reason: {', '.join(dict.fromkeys(against))}"


def _verdict_lines(
    row: LedgerRow, piece: Sample, config: FilterConfig, context: Context
) -> list[str]:
    """Say how far the label of a piece is from its reference, and what every rule makes of it."""
    lines = []
    if piece.wer is not None and piece.cer is not None:
        limit = f"judged by {piece.metric}, limit {config.max_wer}"
        if piece.normalizer:
            limit = f"{piece.normalizer} normaliser, {limit}"
        if piece.orthographic_wer is not None:
            limit = f"as written {piece.orthographic_wer:.4f}; {limit}"
        lines.append(
            f"  errors     wer {piece.wer:.4f}, cer {piece.cer:.4f} ({piece.substitutions} "
            f"substituted, {piece.deletions} deleted, {piece.insertions} inserted; {limit})"
        )
    said = [v for v in verdicts(row, piece, config, context) if v.reason not in config.switched_off]
    for name, rejected in (("passes", False), ("fails", True)):
        if named := [v.reason for v in said if v.rejected is rejected]:
            lines.append(f"  {name:<10} {', '.join(named)}")
    return lines


def _shard_text(shown: Sample, block: Block, layout: Layout) -> str:
    """Say where the utterances are now, whatever the options might become.

    The shard itself is asked: a clip in it may be put together otherwise than it was labelled, and
    what could no longer be read when it was written is not in it.
    """
    record = read_record(layout.commit_record(block.id))
    shard = layout.shard(block.id)
    if record is None or (record.shard and not shard.is_file()):
        return f"block {block.id} has none yet; run again to write it"
    wanted = {(u.id, u.recording_start_seconds) for u in shown.utterances}
    samples = read_shard(shard) if record.shard else ()
    keys = [
        sample_key(sample.id)
        for sample, _ in samples
        if not wanted.isdisjoint((u.id, u.recording_start_seconds) for u in sample.utterances)
    ]
    if keys:
        members = ", ".join(f"{key}.flac and {key}.json" for key in keys)
        return f"shards/{shard.name}, members {members}"
    lacking = record.failed.get("shard", 0)
    why = f", whose shard lacks {lacking} that could no longer be read" if lacking else ""
    return f"in none; its block is {block.id}{why}"


def _failure_text(failed: Failure, block: Block) -> str:
    """Say where something went wrong, or which rule turned an utterance away before the teacher."""
    if failed.stage == RULE_STAGE:
        what = f"rejected, reason: {failed.error} (before the teacher)"
    else:
        what = (
            f"failed at stage {failed.stage} with {failed.error}, attempts: {failed.attempts} "
            "(`run --retry_failed` tries again)"
        )
    return (
        f"{failed.id}: {what}\n  why        {failed.message}\n"
        f"  corpus     {block.corpus}, split {block.split}\n"
        f"  shard      in none; its block is {block.id}"
    )
