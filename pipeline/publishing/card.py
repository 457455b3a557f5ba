"""The dataset card: metadata that the Hub reads, and the numbers that a reader needs.

Everything in it is computed from the index, the report and the published shards; nothing is typed
by hand, so it is as true after the tenth threshold as after the first.
"""

import math
from collections.abc import Mapping
from typing import Any

import jinja2
from datasets import DatasetInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData

from pipeline.publishing.facts import Facts
from pipeline.publishing.features import features
from pipeline.publishing.layout import config_name, configurations, split_name
from pipeline.publishing.licences import hub_name
from pipeline.schema import Index
from pipeline.sweep import SweepPoint
from pipeline.upload import HUB_LANGUAGES, public_name

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)
_NO_MATTER = (
    "model", "revision", "batch_size", "device", "num_threads",
    "canary", "canary_max_wer", "canary_max_words",
)  # fmt: skip
"""What is said of the teacher elsewhere, or does not decide a label."""


def make_card(index: Index, facts: Facts, repo_id: str) -> str:
    """Return the README of a repository that holds the shards of an index."""
    return (
        f"---\n{metadata(index, facts, repo_id).to_yaml()}\n---\n\n{_body(index, facts, repo_id)}"
    )


def metadata(index: Index, facts: Facts, repo_id: str) -> DatasetCardData:
    """Return the card's front matter."""
    named = sorted({hub_name(licence) for licence in facts.licences})
    other = [licence for licence in facts.licences if hub_name(licence) == "other"]
    configs = configurations(index.shards)
    data = DatasetCardData(
        pretty_name=_title(repo_id),
        language=sorted({HUB_LANGUAGES.get(code, code) for code in facts.languages}),
        license=named[0] if len(named) == 1 else named,
        license_name=", ".join(other) or None,
        task_categories=["automatic-speech-recognition"],
        size_categories=[size_category(facts.clips)],
        annotations_creators=["machine-generated"],
        tags=["audio", "speech", "pseudo-labels", "webdataset", "whisper", "whisper-distillery"],
        configs=configs,
    )
    columns = features()
    DatasetInfosDict(
        {
            config["config_name"]: DatasetInfo(features=columns, config_name=config["config_name"])
            for config in configs
        }
    ).to_dataset_card_data(data)
    return data


def size_category(clips: int) -> str:
    """Return the Hub's name for a number of rows."""
    return next((name for limit, name in _SIZES if clips < limit), "n>1T")


def hours_text(hours: float) -> str:
    """Write hours so that a few minutes are still seen."""
    return f"{hours:.2f}" if hours >= 1 else f"{hours:.4f}"


def _title(repo_id: str) -> str:
    return repo_id.partition("/")[2]


def _body(index: Index, facts: Facts, repo_id: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["hours"] = hours_text
    environment.filters["mean_rate"] = mean_rate_text
    teacher = public_name(str(index.teacher.get("model", "unknown")))
    first = min(facts.splits, key=lambda split: (split.split != "train", split.corpus))
    unreferenced = [s for s in facts.splits if s.split in index.filter.get("splits", ("train",))]
    return environment.get_template("dataset_card.md").render(
        title=_title(repo_id),
        repo_id=repo_id,
        index=index,
        facts=facts,
        hours=sum(split.seconds for split in facts.splits) / 3600,
        languages=", ".join(facts.languages),
        teacher=teacher,
        teacher_link=(
            f"[{teacher}](https://huggingface.co/{teacher})" if "/" in teacher else f"`{teacher}`"
        ),
        has_references=bool(facts.sweeps),
        left_out=sum(split.shards_left_out for split in facts.splits),
        settings=[*_settings(index.teacher, *_NO_MATTER), *_settings(index.decoding)],
        limits=", ".join(f"{name} {value}" for name, value in limits_of(index.filter)),
        perfect_words=perfect_words(index.filter) if facts.sweeps else 0,
        filtered=", ".join(index.filter.get("splits", ("train",))),
        sweeps=[(c, points) for c in sorted(facts.sweeps) if (points := facts.sweep_of(c))],
        unreferenced=unreferenced_text(unreferenced, facts),
        counts=_counts,
        first=first,
        first_split=split_name(first.split),
        first_config=config_name(first.corpus),
    )


def mean_rate_text(point: SweepPoint) -> str:
    """Write the error rate of what a threshold keeps, or both if two metrics judge it; "" if none.

    A card of an earlier release knows only the rate of all.
    """
    if point.mean_wer is not None:
        return f"{point.mean_wer:.4f}"
    return ", ".join(f"{rate:.4f} ({metric})" for metric, rate in point.mean_rates.items())


def unreferenced_text(filtered: list[Any], facts: Facts) -> str:
    """Name the corpora that were filtered without any transcript; "" if there is none."""
    names = []
    for corpus in sorted({split.corpus for split in filtered}):
        points = facts.sweep_of(corpus)
        if points and not any(map(mean_rate_text, points)):
            names.append(corpus)
    return ", ".join(names)


_PARTNERS = {
    "acceptance_precision": "acceptance_model",
    "contamination_words": "evaluation_sets",
    "error_budget_min_length": "error_budget",
}
"""Limits that mean nothing where another one is not set."""


def limits_of(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what a filter judges by; what is off is left out, but not an error rate of 0."""
    off = [name for name, value in options.items() if not value and name != "max_wer"]
    off += [name for name, partner in _PARTNERS.items() if not options.get(partner)]
    return _settings(options, "splits", *off)


def perfect_words(options: Mapping[str, Any]) -> int:
    """Return up to how many words a reference is kept only with a perfect label; 0 if none is."""
    limit = options.get("max_wer", 0)
    if not 0 < limit < 1 or options.get("error_budget"):
        return 0
    return math.ceil(1 / limit - 1e-9) - 1


def _settings(values: Mapping[str, Any], *without: str) -> list[tuple[str, str]]:
    """List what is set to something."""
    return [
        (name, f"`{', '.join(map(str, v)) if isinstance(v, list | tuple) else v}`")
        for name, v in values.items()
        if name not in without and v not in (None, "", [], (), {})
    ]


def _counts(numbers: Mapping[str, int]) -> str:
    """Write counts by name."""
    if not numbers:
        return "0"
    return f"{sum(numbers.values())} ({', '.join(f'{n}: {c}' for n, c in numbers.items())})"
