"""What a run would do, without doing it: what is not up to date, and how long that takes."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from pipeline.blocks import committed, is_labelled
from pipeline.config import PipelineConfig
from pipeline.layout import Layout
from pipeline.plan import PlannedCorpus, make_plan
from pipeline.teacher import resolve_revision, settle
from pipeline.timings import read_timings


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What `whisper-pipeline plan` says."""

    corpora: tuple[PlannedCorpus, ...]
    utterances: int
    hours: float
    teacher: str
    teacher_revision: str
    label_key: str
    shard_key: str
    blocks: int
    blocks_to_label: int
    blocks_to_filter: int
    """Labelled, but their shards are missing or were made with another filter."""
    blocks_done: int
    hours_to_label: float
    rtfx: float | None
    """As measured on what this teacher has labelled in this folder; None before that."""
    teacher_hours: float | None
    """Compute that is still needed, at that speed."""


def make_forecast(config: PipelineConfig) -> Forecast:
    """Plan a run and compare the plan with what is committed.

    Raises:
        FileNotFoundError: a corpus or the teacher does not exist.
        ValueError: a corpus is empty.
    """
    config = dataclasses.replace(config, teacher=settle(config.teacher))
    plan = make_plan(config, resolve_revision(config.teacher))
    layout, keys = Layout(Path(config.output)), plan.keys
    to_build = [b for b in plan.blocks if not committed(b, layout, keys)]
    to_label = [b for b in to_build if not is_labelled(b, layout, keys)]
    rtfx = read_timings(layout.ledger(keys.label_key, block.id) for block in plan.blocks).rtfx
    hours_to_label = sum(block.duration_seconds for block in to_label) / 3600
    return Forecast(
        corpora=plan.corpora,
        utterances=plan.num_utterances,
        hours=plan.duration_seconds / 3600,
        teacher=config.teacher.model,
        teacher_revision=keys.teacher_revision,
        label_key=keys.label_key,
        shard_key=keys.shard_key,
        blocks=len(plan.blocks),
        blocks_to_label=len(to_label),
        blocks_to_filter=len(to_build) - len(to_label),
        blocks_done=len(plan.blocks) - len(to_build),
        hours_to_label=hours_to_label,
        rtfx=rtfx,
        teacher_hours=hours_to_label / rtfx if rtfx else None,
    )
