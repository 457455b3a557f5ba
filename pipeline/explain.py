"""The whole story of a clip or utterance: where it came from, what every rule says, where it is."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rapidfuzz.process import extract

from pipeline.context import Context
from pipeline.corpora.utterance import RULE_STAGE
from pipeline.cutting import reasons
from pipeline.files import AnyPath, path_of
from pipeline.filters import error_rate, verdicts
from pipeline.labels import ledger_context, read_run
from pipeline.layout import Layout
from pipeline.ledger import Failure, LedgerRow, read_failures, read_ledger, read_table
from pipeline.limits import FilterConfig
from pipeline.plan import Block, Plan
from pipeline.schema import sample_key
from pipeline.shards import read_record

NUM_SUGGESTIONS = 3


def explain(output: str | AnyPath, wanted: str, **overrides: Any) -> list[str]:
    """Return one text for each clip or utterance of that id; an id can stand in several splits.

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
        texts += [_label_text(row, block, layout, limits, context, overrides) for row in found]
        texts += [_failure_text(f, block) for f in failures if wanted in (f.id, *f.utterance_ids)]
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


def _label_text(
    row: LedgerRow,
    block: Block,
    layout: Layout,
    config: FilterConfig,
    context: Context,
    overrides: dict[str, Any],
) -> str:
    """Say what the filter makes of a label, and on what evidence."""
    against = reasons(row, config, context)
    reason = against[0] if len(set(against)) == 1 else None
    filtered = "" if row.split in config.splits else f" (split {row.split} is not filtered)"
    supposed = ", ".join(f"{name} {value}" for name, value in overrides.items())
    lines = [
        f"{row.id}: {'kept' if reason is None else f'rejected, reason: {reason}'}{filtered}"
        + (f", if {supposed}" if supposed else ""),
        f"  corpus     {row.corpus}, split {row.split}, language {row.language}, "
        f"licence {row.licence}",
        f"  audio      {row.recording}, "
        f"{row.duration_seconds:.2f} s from {row.start_seconds:.2f} s",
        f"  reference  {row.reference}",
        f"  label      {row.pseudo_label}",
    ]
    if len(row.utterances) > 1:
        lines += [
            f"  utterance  {u.id}, {u.duration:.2f} s from {u.start:.2f} s, "
            f"{f'cut out: {why}' if why else 'kept'}: {u.reference!r}, label {u.pseudo_label!r}"
            for u, why in zip(row.utterances, against, strict=True)
        ]
    if row.wer is not None and row.cer is not None:
        limit = f"judged by {row.metric}, limit {config.max_wer}"
        if row.normalizer:
            limit = f"{row.normalizer} normaliser, {limit}"
        if row.orthographic_wer is not None:
            limit = f"as written {row.orthographic_wer:.4f}; {limit}"
        lines.append(
            f"  errors     wer {row.wer:.4f}, cer {row.cer:.4f} ({row.substitutions} substituted, "
            f"{row.deletions} deleted, {row.insertions} inserted; {limit})"
        )
    lines.append(
        f"  evidence   avg_logprob {row.avg_logprob}, no_speech_prob {row.no_speech_prob}, "
        f"compression_ratio {row.compression_ratio}, temperature {row.temperature}, "
        f"truncated {str(row.truncated).lower()}"
    )
    said = verdicts(row, config, context)
    verdict_of = {v.reason: "fails" if v.rejected else "passes" for v in said}
    verdict_of |= dict.fromkeys(config.switched_off, "off")
    for verdict in ("passes", "fails", "off"):
        if named := [reason for reason, of in verdict_of.items() if of == verdict]:
            lines.append(f"  {verdict:<10} {', '.join(named)}")
    if reason is None and error_rate(row) is None and row.split in config.splits:
        lines.append("  note       without a reference; only the rules that need none judged it")
    lines.append(f"  teacher    {row.teacher} at {row.teacher_revision}")
    lines.append(f"  shard      {_shard_text(row, block, layout)}")
    return "\n".join(lines)


def _shard_text(row: LedgerRow, block: Block, layout: Layout) -> str:
    """Say where the clip is now, whatever the options might become."""
    record = read_record(layout.commit_record(block.id))
    if record is None:
        return f"block {block.id} has none yet; run again to write it"
    config, _ = read_run(layout)
    against = reasons(row, config.filter, _run_context(config.filter, layout))
    if record.shard is None or all(against):
        return f"in none; its block is {block.id}"
    key = sample_key(row.id)
    return f"shards/{record.shard.name}, members {key}.flac and {key}.json"


def _run_context(config: FilterConfig, layout: Layout) -> Context:
    """Return what the run itself knew beyond the row."""
    _, plan = read_run(layout)
    return ledger_context(config, plan, layout)


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
