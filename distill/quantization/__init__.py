"""Quantisation, whole: grids, training through them, small files, and other runtimes' formats.

    model = distill.quantization.load("runs/mine/student-w8")
    distill.quantization.size_report("base", "paper").file_bytes

Names are looked up when they are used: the command line reads the presets and shall not wait for
torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.quantization.export import to_ctranslate2
    from distill.quantization.kernels import load_with_integers
    from distill.quantization.packed import load, save
    from distill.quantization.sizes import inspect, size_report

__all__ = ["inspect", "load", "load_with_integers", "save", "size_report", "to_ctranslate2"]

_HOMES = {
    "load": "packed",
    "save": "packed",
    "load_with_integers": "kernels",
    "inspect": "sizes",
    "size_report": "sizes",
    "to_ctranslate2": "export",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
