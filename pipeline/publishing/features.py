"""The columns of a published dataset, derived from the contract.

They stand in the card, so every split has the same types, whatever its first samples hold.
"""

import dataclasses
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from datasets import Audio, Features, List, Value

from pipeline.schema import SAMPLE_RATE, Sample

_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


def features() -> Features:
    """Return the columns: the sound, which the Hub's viewer plays, and its JSON."""
    return Features({"flac": Audio(sampling_rate=SAMPLE_RATE), "json": _feature(Sample)})


def _feature(kind: Any) -> Any:
    """Turn a type of the contract into one of `datasets`; there every value may be null."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return {name: _feature(of) for name, of in get_type_hints(kind).items()}
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        return List(_feature(args[0]))
    if origin is UnionType:
        return _feature(next(a for a in args if a is not NoneType))
    return Value(_TYPES[kind])
