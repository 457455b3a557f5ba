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
    """Options, each with its former and its present value, as text."""

    of_labels: tuple[str, ...] = ()
    of_shards: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Those that decide labels first."""
        return self.of_labels + self.of_shards


def changes(layout: Layout, config: PipelineConfig, keys: Keys) -> Changes:
    """Compare a configuration with the one that an output was last worked on with.

    Where they differ in what decides neither labels nor shards, nothing has changed.
    """
    if not layout.plan.is_file() or not layout.config.is_file():
        return Changes()
    try:
        before = from_dict(Keys, json.loads(layout.plan.read_text(encoding="utf-8"))["keys"])
        if before == keys:
            return Changes()
        old = load_config(layout.config)
    except (KeyError, ValueError) as error:  # damaged, or of another release
        logger.warning("what %s was made with cannot be told: %s", layout.output, error)
        return Changes()
    of_labels = of_shards = ()
    if before.label_key != keys.label_key:
        of_labels = _differing(_labelling(old, before), _labelling(config, keys))
    if before.shard_key != keys.shard_key:
        of_shards = _differing(_filtering(old), _filtering(config))
    return Changes(of_labels=of_labels, of_shards=of_shards)


def say(changed: Changes, layout: Layout, *, to_label: int, to_build: int) -> None:
    """Log what a run will do because of changed options, and what to do if that is not wanted."""
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
        f"{name} was {_shown(before.get(name))}, now {_shown(now.get(name))}"
        for name in names
        if before.get(name) != now.get(name)
    )


def _shown(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)
