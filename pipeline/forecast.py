"""What a run would do, without doing it: what is not up to date, and how long that takes."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.blocks import committed, is_labelled
from pipeline.changes import changes
from pipeline.config import PipelineConfig
from pipeline.files import path_of
from pipeline.layout import Layout
from pipeline.measurement import Measurement, write_measurement
from pipeline.measurement import measure as measure_sample
from pipeline.plan import Block, Plan, PlannedCorpus, make_plan
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
    estimate: "Estimate | None" = None
    """From a measured sample, where one was asked for."""
    changed: tuple[str, ...] = ()
    """Options that decide labels or shards and are not those of the last run in this folder."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the rest of a run will take, from a sample that was labelled here."""

    sample_utterances: int
    sample_seconds: float
    """Audio."""
    stage_seconds: dict[str, float]
    """Of the sample, by stage."""
    compute_hours: float
    """Of one worker like the one that was measured; N of them take an N-th."""
    cost: float | None
    """At the price that was given, in its currency."""
    ledger_bytes: float
    """Of the whole plan, like the shards."""
    shard_bytes: float
    """At most, were everything kept."""


def make_forecast(config: PipelineConfig, *, measure: int = 0) -> Forecast:
    """Plan a run and compare the plan with what is committed.

    Args:
        config: what is to be run; it may say what an hour of one worker costs.
        measure: label so many utterances to estimate the rest, and keep in the output what that
            took; 0 labels and writes nothing.

    Raises:
        FileNotFoundError: a corpus or the teacher does not exist.
        ValueError: a corpus is empty.
        RuntimeError: nothing of the sample could be labelled.
        OSError: the output cannot be written to.
    """
    config = dataclasses.replace(config, teacher=settle(config.teacher))
    plan = make_plan(config, resolve_revision(config.teacher))
    layout, keys = Layout(path_of(config.output)), plan.keys
    to_build = [b for b in plan.blocks if not committed(b, layout, keys)]
    to_label = [b for b in to_build if not is_labelled(b, layout, keys)]
    rtfx = read_timings([layout.ledger(keys.label_key, block.id) for block in plan.blocks]).rtfx
    estimate = None
    if measure:
        sample = measure_sample(to_label or plan.blocks, config, keys, measure)
        write_measurement(layout, sample)
        rtfx = sample.rtfx
        estimate = _estimate(sample, plan, to_label, config.price_per_hour)
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
        estimate=estimate,
        changed=changes(layout, config, keys).all,
    )


def _estimate(
    sample: Measurement, plan: Plan, to_label: Sequence[Block], price_per_hour: float | None
) -> Estimate:
    """Scale a sample up to what is still to be labelled, and to what will be stored."""
    hours = sum(block.duration_seconds for block in to_label) / 3600 * sample.compute_per_audio
    return Estimate(
        sample_utterances=sample.utterances,
        sample_seconds=sample.audio_seconds,
        stage_seconds=sample.stage_seconds,
        compute_hours=hours,
        cost=None if price_per_hour is None else hours * price_per_hour,
        ledger_bytes=sample.ledger_bytes(plan),
        shard_bytes=sample.shard_bytes_per_second * plan.duration_seconds,
    )
