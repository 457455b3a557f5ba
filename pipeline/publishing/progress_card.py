"""A card for a dataset that is still being labelled: how far it is, and no data.

It is made from the plan and the committed labels alone, so it can be sent at any moment of a run,
from any machine that sees the output, and as often as wanted. The card of the finished dataset
takes its place.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

import jinja2
from huggingface_hub import DatasetCardData

from pipeline import upload
from pipeline.blocks import is_labelled
from pipeline.files import AnyPath
from pipeline.layout import Layout
from pipeline.plan import Plan, PlannedCorpus
from pipeline.publishing.card import hours_text
from pipeline.publishing.config import PublishConfig
from pipeline.publishing.layout import CARD, INDEX
from pipeline.publishing.licences import hub_name
from pipeline.report import read_run
from pipeline.timings import read_timings
from pipeline.upload import HUB_LANGUAGES, Outgoing, Publication, PublishError, public_name


@dataclass(frozen=True, kw_only=True)
class SplitProgress:
    """How far one split of one corpus is."""

    corpus: PlannedCorpus
    blocks: int
    """Labelled."""
    hours: float
    """Labelled."""


def plan_progress(output: AnyPath, config: PublishConfig) -> Publication:
    """Return a repository that holds the card of a run under way.

    Raises:
        FileNotFoundError: the folder holds no run.
        PublishError: the repository holds a finished dataset, or the Hub did not answer.
        ValueError: the Hub would refuse the name.
    """
    upload.check_name(config.repo_id)
    run, plan = read_run(Layout(output))
    if upload.download_text("dataset", config.repo_id, INDEX) is not None:
        raise PublishError(
            f"{config.repo_id} holds a finished dataset, and its card tells of that one. Publish "
            "without --card_only when the run is done, or give another name for the new one"
        )
    card = make_progress_card(
        progress_of(plan, Layout(output)), config.repo_id, public_name(run.teacher.model)
    )
    return Publication(
        repo_id=config.repo_id,
        kind="dataset",
        files=(upload.marker("dataset"),),
        last=(Outgoing(CARD, card.encode()),),
        seal=INDEX,
        owns=lambda path: False,
    )


def progress_of(plan: Plan, layout: Layout) -> list[SplitProgress]:
    """Count what of each split is committed."""
    blocks: Counter[tuple[str, str]] = Counter()
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    for block in plan.blocks:
        if is_labelled(block, layout, plan.keys):
            source = block.corpus, block.split
            blocks[source] += 1
            part = layout.ledger(plan.keys.label_key, block.id)
            seconds[source] += read_timings([part]).audio_seconds
    return [
        SplitProgress(
            corpus=corpus,
            blocks=blocks[corpus.name, corpus.split],
            hours=seconds[corpus.name, corpus.split] / 3600,
        )
        for corpus in plan.corpora
    ]


def make_progress_card(splits: list[SplitProgress], repo_id: str, teacher: str) -> str:
    """Return the README of a repository whose dataset is not finished."""
    title = repo_id.partition("/")[2]
    languages = sorted({split.corpus.language for split in splits})
    licences = {name for split in splits for name in split.corpus.licence.split(", ")}
    named = sorted({hub_name(licence) for licence in licences})
    other = sorted(licence for licence in licences if hub_name(licence) == "other")
    data = DatasetCardData(
        pretty_name=title,
        language=sorted({HUB_LANGUAGES.get(code, code) for code in languages}),
        license=named[0] if len(named) == 1 else named,
        license_name=", ".join(other) or None,
        task_categories=["automatic-speech-recognition"],
        annotations_creators=["machine-generated"],
        tags=["audio", "speech", "pseudo-labels", "whisper", "whisper-distillery"],
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["hours"] = hours_text
    body = environment.get_template("progress_card.md").render(
        title=title,
        teacher=teacher,
        languages=", ".join(languages),
        splits=splits,
        labelled=sum(split.hours for split in splits),
        planned=sum(split.corpus.duration_seconds for split in splits) / 3600,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}"
