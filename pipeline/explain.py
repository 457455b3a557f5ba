"""Why a clip or utterance was kept, rejected or failed, in sentences."""

from pathlib import Path

from pipeline.corpora.utterance import RULE_STAGE
from pipeline.filters import FilterConfig, rejection
from pipeline.layout import Layout
from pipeline.ledger import Failure, LedgerRow
from pipeline.report import labels, read_run


def explain(output: Path, wanted: str) -> list[str]:
    """Return one text for each clip or utterance of that id; an id can stand in several splits.

    Raises:
        FileNotFoundError: the folder holds no run, or its blocks are not labelled yet.
        ValueError: no clip and no utterance has the id.
    """
    layout = Layout(Path(output))
    config, plan = read_run(layout)
    texts = []
    for rows, failures in labels(plan, layout):
        texts += [
            _label_text(row, config.filter)
            for row in rows
            if wanted == row.id or wanted in (u.id for u in row.utterances)
        ]
        texts += [_failure_text(f) for f in failures if wanted in (f.id, *f.utterance_ids)]
    if not texts:
        raise ValueError(f"{output} has no clip or utterance with the id {wanted!r}")
    return texts


def _label_text(row: LedgerRow, config: FilterConfig) -> str:
    """Say what the filter made of a label, and on what evidence."""
    reason = rejection(row, config)
    filtered = "" if row.split in config.splits else f" (split {row.split} is not filtered)"
    lines = [
        f"{row.id}: {'kept' if reason is None else f'rejected, reason: {reason}'}{filtered}",
        f"  corpus     {row.corpus}, split {row.split}, language {row.language}",
        f"  audio      {row.recording}, "
        f"{row.duration_seconds:.2f} s from {row.start_seconds:.2f} s",
        f"  reference  {row.reference}",
        f"  label      {row.pseudo_label}",
    ]
    if row.wer is not None:
        limit = f"judged by {row.metric}, limit {config.max_wer}"
        lines.append(
            f"  errors     wer {row.wer:.4f}, cer {row.cer:.4f} ({row.substitutions} substituted, "
            f"{row.deletions} deleted, {row.insertions} inserted; {limit})"
        )
    lines.append(
        f"  evidence   avg_logprob {row.avg_logprob}, no_speech_prob {row.no_speech_prob}, "
        f"compression_ratio {row.compression_ratio}, truncated {str(row.truncated).lower()}"
    )
    lines.append(f"  teacher    {row.teacher} at {row.teacher_revision}")
    return "\n".join(lines)


def _failure_text(failed: Failure) -> str:
    """Say where something went wrong, or which rule turned an utterance away before the teacher."""
    if failed.stage == RULE_STAGE:
        return f"{failed.id}: rejected, reason: {failed.error}\n  {failed.message}"
    return (
        f"{failed.id}: failed at stage {failed.stage} with {failed.error}, "
        f"attempts: {failed.attempts}\n  {failed.message}"
    )
