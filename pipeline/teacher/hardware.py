"""Settle what a configuration leaves to the machine: engine, device and number format.

Engine and number format decide labels, so they are settled once, where the run is planned, and are
part of the label key. The device is each worker's own choice. Whether it can run the number format
is checked where the teacher is to run, for a run may be started, planned or filtered on a machine
that is not like its workers.
"""

import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import IO

from pipeline.config import TeacherConfig

logger = logging.getLogger(__name__)

_NEEDS = {"transformers": ("torch", "transformers"), "ctranslate2": ("ctranslate2", "tokenizers")}
_CLAIMS: list[IO[str]] = []
"""Open files hold the claims of this process."""
_TRANSFORMERS_DTYPES = ("float32", "float16", "bfloat16")


def settle(config: TeacherConfig) -> TeacherConfig:
    """Return the configuration with engine and number format as they will be.

    Raises:
        ValueError: the engine is not installed, or the device is not there.
    """
    device = choose_device(config)
    engine = config.engine
    if engine == "auto":
        blind = device != "cpu" and not _ctranslate2_gpus()
        if not installed("ctranslate2"):
            engine, why = "transformers", "ctranslate2 is not installed (whisper-distillery[fast])"
        elif blind:
            engine, why = "transformers", "ctranslate2 sees no GPU here"
        else:
            engine, why = "ctranslate2", "it is installed, and faster than transformers"
        logger.info("the teacher runs with %s on %s: %s", engine, device, why)
    missing = [name for name in _NEEDS[engine] if not _found(name)]
    if missing:
        extra = "fast" if engine == "ctranslate2" else "pipeline"
        raise ValueError(
            f"teacher.engine {engine} needs {', '.join(missing)}: install whisper-distillery"
            f"[{extra}], or choose another engine"
        )
    settled = dataclasses.replace(config, engine=engine)
    dtype = _auto_dtype(settled, device) if config.dtype == "auto" else config.dtype
    return dataclasses.replace(settled, dtype=dtype)


def choose_device(config: TeacherConfig) -> str:
    """Return the device of this machine that the teacher will run on.

    Raises:
        ValueError: the device that is asked for is not there.
    """
    found = num_gpus()
    if config.device == "auto":
        return "cuda" if found else "cpu"
    if config.device.startswith("cuda"):
        _, _, index = config.device.partition(":")
        if int(index or 0) >= found:
            raise ValueError(
                f"teacher.device is {config.device}, but this machine has {found} CUDA device(s); "
                "use `auto` to take what is there"
            )
    return config.device


def claim_device(config: TeacherConfig) -> str:
    """Return the device for this process; with `auto`, a GPU that no other process has claimed.

    So the workers of a machine spread over its GPUs, one model each. The claim ends with the
    process. Where there are more workers than GPUs, they share.
    """
    device = choose_device(config)
    if config.device != "auto" or device == "cpu":
        return device
    found = num_gpus()
    for index in range(found):
        name = f"whisper-distillery-{os.getuid()}-gpu{_device_name(index)}"
        if _claim(Path(tempfile.gettempdir()) / name):
            return f"cuda:{index}"
    return f"cuda:{os.getpid() % found}"


def _device_name(index: int) -> str:
    """Name a GPU as all processes of the machine do, whichever of them are visible to this one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return re.sub(r"[^A-Za-z0-9-]", "-", names[index]) if index < len(names) else str(index)


def _claim(path: Path) -> bool:
    """Take a lock for as long as this process lives, unless another has it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    _CLAIMS.append(file)
    return True


def num_gpus() -> int:
    """Count the GPUs; asks the engine that is quick to import first."""
    found = _ctranslate2_gpus()
    if found or (installed("ctranslate2") and "torch" not in sys.modules and not _driver()):
        return found
    if not _found("torch"):
        return found
    import torch

    return torch.cuda.device_count()


def installed(engine: str) -> bool:
    """Tell whether what an engine needs is installed, without importing it."""
    return all(_found(name) for name in _NEEDS[engine])


def versions(engine: str) -> str:
    """Name the libraries that run an engine here, with their versions."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _NEEDS[engine])


def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _driver() -> bool:
    """Tell whether the kernel knows an NVIDIA GPU; without, torch need not be asked."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"))


def _ctranslate2_gpus() -> int:
    if not installed("ctranslate2"):
        return 0
    import ctranslate2

    return ctranslate2.get_cuda_device_count()


def _auto_dtype(config: TeacherConfig, device: str) -> str:
    """Return the number format that the hardware is fastest with and that keeps the labels."""
    if config.engine == "ctranslate2":
        import ctranslate2

        kind, _, index = device.partition(":")
        supported = ctranslate2.get_supported_compute_types(kind, int(index or 0))
        wanted = ("int8_float32", "float32") if kind == "cpu" else ("float16", "float32")
        return next(dtype for dtype in wanted if dtype in supported)
    if device == "cpu":
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def check_dtype(config: TeacherConfig) -> None:
    """Refuse what would otherwise fail in the first batch, or be replaced in silence.

    Raises:
        ValueError: the settled engine cannot run the number format on the device of this machine.
    """
    engine, device, dtype = config.engine, choose_device(config), config.dtype
    if engine == "ctranslate2":
        import ctranslate2

        kind, _, index = device.partition(":")
        supported = sorted(ctranslate2.get_supported_compute_types(kind, int(index or 0)))
    else:
        supported = list(_TRANSFORMERS_DTYPES if device != "cpu" else ("float32", "bfloat16"))
    if dtype not in supported:
        raise ValueError(
            f"teacher.dtype {dtype} does not run with {engine} on {device}; "
            f"this machine can do {', '.join(supported)}"
        )
