"""Which settings differ between what was noted and what is asked for now, in words.

A refusal that says only "other settings" leaves the search to whoever reads it. So each setting
is named as the command line names it, dotted, with both values as it takes them.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any


def describe_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> str:
    """Name each setting that differs, with both values; "" where none does.

    A setting that `before` lacks, because an earlier release wrote it, had its default.
    """
    return ", ".join(
        f"{key} (was {_written(old)}, now {_written(new)})"
        for key, old, new in changes(before, now, defaults or {})
    )


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted key of each setting that differs, and its two values; lists as a whole."""
    for key in sorted(before.keys() | now.keys()):
        default = defaults.get(key)
        old, new = before.get(key, default), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = default if isinstance(default, Mapping) else {}
            yield from changes(old, new, inner, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}", old, new


def defaults_of(kind: Any) -> dict[str, Any]:
    """Return the defaults of a configuration's fields as JSON gives them back."""
    found = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
            found[field.name] = (
                dataclasses.asdict(value)
                if dataclasses.is_dataclass(value) and not isinstance(value, type)
                else value
            )
    return json.loads(json.dumps(found))


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
