"""What of the configuration is not what it was when an output was last worked on.

A run does what the changed options ask for, as `make` would, but it says so first: a wrong teacher
or output is cheaper to find in this line than in the bill.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.config_files import load_config
from pipeline.layout import Layout
from pipeline.plan import Keys
from pipeline.schema import from_dict

logger = logging.getLogger(__name__)

_OF_TEACHER = ("model", "engine", "dtype", "window")


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Options and corpora, each with its former and its present value, as text."""

    of_corpora: tuple[str, ...] = ()
    of_labels: tuple[str, ...] = ()
    of_shards: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """What is labelled first, then what decides labels, then the rest."""
        return self.of_corpora + self.of_labels + self.of_shards


def changes(layout: Layout, config: PipelineConfig, keys: Keys) -> Changes:
    """Compare a configuration with the one that an output was last worked on with.

    Where they differ in what decides neither labels nor shards, nothing has changed.
    """
    if not layout.plan.is_file() or not layout.config.is_file():
        return Changes()
    try:
        before = from_dict(Keys, json.loads(layout.plan.read_text(encoding="utf-8"))["keys"])
        old = load_config(layout.config)
    except (KeyError, ValueError) as error:  # damaged, or of another release
        logger.warning("what %s was made with cannot be told: %s", layout.output, error)
        return Changes()
    of_labels = of_shards = ()
    if before.label_key != keys.label_key:
        of_labels = _differing(_labelling(old, before), _labelling(config, keys))
    if before.shard_key != keys.shard_key:
        of_shards = _differing(_filtering(old), _filtering(config))
    of_corpora = _differing(_paths(old), _paths(config))
    return Changes(of_corpora=of_corpora, of_labels=of_labels, of_shards=of_shards)


def say(changed: Changes, layout: Layout, *, to_label: int, to_build: int, to_remove: int) -> None:
    """Log what a run will do because of what changed, and what to do if that is not wanted."""
    if changed.of_corpora and (to_label or to_remove):
        logger.warning(
            "%s was made of other corpora: %s. %d blocks are to be labelled; the shards of %d that "
            "are not planned any more are removed, their labels stay. If you want both datasets, "
            "name another `output`.",
            layout.output,
            "; ".join(changed.of_corpora),
            to_label,
            to_remove,
        )
    if changed.of_labels and to_label:
        logger.warning(
            "%s was labelled with other options: %s. %d blocks are labelled with the new ones; the "
            "labels made before stay, and count again under the former values. If you want both "
            "datasets, name another `output`.",
            layout.output,
            "; ".join(changed.of_labels),
            to_label,
        )
    if changed.of_shards and to_build:
        logger.info(
            "%s was filtered with other options: %s. %d shards are written again.",
            layout.output,
            "; ".join(changed.of_shards),
            to_build,
        )


def _paths(config: PipelineConfig) -> dict[str, Any]:
    return {f"corpus {corpus.name}-{corpus.split}": corpus.path for corpus in config.corpora}


def _labelling(config: PipelineConfig, keys: Keys) -> dict[str, Any]:
    teacher = {name: getattr(config.teacher, name) for name in _OF_TEACHER}
    return {
        **_dotted("teacher", teacher | {"revision": keys.teacher_revision}),
        **_dotted("decoding", dataclasses.asdict(config.decoding)),
        **_dotted("clips", dataclasses.asdict(config.clips.for_labels())),
    }


def _filtering(config: PipelineConfig) -> dict[str, Any]:
    after = dataclasses.asdict(config.clips) if config.clips.pack == "after_filter" else {}
    return _dotted("clips", after) | _dotted("filter", dataclasses.asdict(config.filter))


def _dotted(group: str, options: dict[str, Any]) -> dict[str, Any]:
    return {f"{group}.{name}": value for name, value in options.items()}


def _differing(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, ...]:
    names = [*now, *(name for name in before if name not in now)]
    return tuple(
        f"{name} was {_shown(before, name)}, now {_shown(now, name)}"
        for name in names
        if _shown(before, name) != _shown(now, name)
    )


def _shown(options: dict[str, Any], name: str) -> str:
    if name not in options:
        return "not there"
    value = options[name]
    return repr(list(value) if isinstance(value, tuple) else value)
