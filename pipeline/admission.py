"""Admit a loaded teacher to a run once its canary was heard.

The first worker leaves its result beside the ledger that it is about to fill. Workers elsewhere,
and those of later runs, must agree with it before they add to that ledger.
"""

import hashlib
import logging
import platform
from dataclasses import dataclass
from functools import lru_cache

from pipeline.config import TeacherConfig
from pipeline.files import AnyPath, write_text
from pipeline.schema import from_json, to_json
from pipeline.teacher import CanaryResult, Teacher, canary, check_canary, check_drift

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HeardCanary:
    """`canary.json` beside the ledger: a canary that was passed."""

    machine: str
    """A hash of its name and of what runs the teacher there; "" where that is an accelerator, one
    of maybe several."""
    result: CanaryResult


def admit(
    teacher: Teacher,
    config: TeacherConfig,
    path: AnyPath,
    *,
    english: bool,
    accelerated: bool,
    engine: str,
) -> None:
    """Hear the canary, and leave the result at `path` or compare it with what is there.

    It is not heard again on the machine that left it, as long as engine and weights are the same:
    they say the same on the same processor. Each accelerator is heard.

    Args:
        teacher: as it was loaded.
        config: has the tolerances.
        path: where all workers with the same labels look.
        english: whether there is English to label.
        accelerated: whether the teacher runs on an accelerator.
        engine: names the software and the weights that run it; another name is heard.

    Raises:
        CanaryError: the teacher failed, or hears something else than another worker's.
    """
    here = hashlib.sha256(f"{platform.node()}\n{engine}".encode())
    machine = "" if accelerated else here.hexdigest()[:16]
    heard = read_canary(path)
    if heard and heard.machine and heard.machine == machine:
        return
    result = _hear(teacher, config, english)
    check_canary(result)
    if heard:
        check_drift(heard.result, result, config)
    else:
        write_text(path, to_json(HeardCanary(machine=machine, result=result)) + "\n")


def read_canary(path: AnyPath) -> HeardCanary | None:
    """Read the result of an earlier worker; None where there is none that can be read."""
    try:
        return from_json(HeardCanary, path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is damaged, the canary is heard again: %s", path, error)
        return None


@lru_cache(maxsize=1)
def _hear(teacher: Teacher, config: TeacherConfig, english: bool) -> CanaryResult:
    """Label the canary's clips once per process."""
    return canary(teacher, config, english=english)
