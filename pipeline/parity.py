"""Label the same clips with every engine and say how far their labels agree."""

import dataclasses
import importlib.util
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pipeline.clips import Clip, make_clips, read_clip
from pipeline.config import CorpusConfig, PipelineConfig
from pipeline.corpora import Utterance, read
from pipeline.schema import model_path
from pipeline.scoring import corpus_rate, normalize, score
from pipeline.teacher import load_teacher, resolve_revision
from pipeline.teacher.engine import ENGINES
from pipeline.teacher.hardware import installed
from pipeline.teacher.openai_reference import transcribe
from pipeline.voice import find_speech

logger = logging.getLogger(__name__)

REFERENCE = "transformers"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How one engine's labels compare with the reference engine's, on the same clips."""

    engine: str
    clips: int
    identical: float
    """Share of clips whose normalised text is that of the reference engine."""
    wer: float
    """Against the corpus's references; NaN where it has none."""
    wer_difference: float
    """`wer` less that of the reference engine."""


def parity(config: PipelineConfig, num_clips: int) -> list[Agreement]:
    """Label the first clips of the corpora in float32 with every engine that is installed.

    openai-whisper takes part where it can be imported and knows the teacher's vocabulary.

    Raises:
        FileNotFoundError: a corpus or the teacher does not exist.
        ValueError: the reference engine is not installed, or no clip can be read.
    """
    if not installed(REFERENCE):
        raise ValueError("parity compares with transformers: install whisper-distillery[pipeline]")
    clips, audio = _clips(config, num_clips)
    if not clips:
        raise ValueError("none of the first clips of the corpora can be read")
    languages = [clip.language for clip in clips]
    revision = resolve_revision(config.teacher)
    texts: dict[str, list[str]] = {}
    for engine in ENGINES:
        if not installed(engine):
            logger.warning("%s is not installed and is left out", engine)
            continue
        settings = dataclasses.replace(
            config.teacher, engine=engine, dtype="float32", window="full"
        )
        teacher = load_teacher(settings, config.decoding, revision)
        texts[engine] = [
            teacher.label([samples], language)[0].text
            for samples, language in zip(audio, languages, strict=True)
        ]
    if "whisper" in sys.modules or importlib.util.find_spec("whisper") is not None:
        try:
            name = model_path(config.teacher.model)
            texts["openai-whisper"] = transcribe(name, revision, audio, languages, config.decoding)
        except (ImportError, ValueError) as error:
            logger.warning("openai-whisper is left out: %s", error)
    references = [clip.spans[0].utterance.reference or "" for clip in clips]
    return compare(texts, references, languages)


def compare(
    texts: Mapping[str, Sequence[str]], references: Sequence[str], languages: Sequence[str]
) -> list[Agreement]:
    """Compare each engine's texts with those of the reference engine and with the references."""

    def wer(said: Sequence[str]) -> float:
        scores = [
            score(reference, text, language)
            for reference, text, language in zip(references, said, languages, strict=True)
            if reference.strip()
        ]
        return corpus_rate(scores) if scores else math.nan

    expected = [normalize(t, code) for t, code in zip(texts[REFERENCE], languages, strict=True)]
    found = []
    for engine, said in texts.items():
        normal = [normalize(t, code) for t, code in zip(said, languages, strict=True)]
        same = sum(a == b for a, b in zip(expected, normal, strict=True))
        rate = wer(said)
        found.append(
            Agreement(
                engine=engine,
                clips=len(said),
                identical=same / len(said),
                wer=rate,
                wer_difference=rate - wer(texts[REFERENCE]),
            )
        )
    return found


def _clips(config: PipelineConfig, num_clips: int) -> tuple[list[Clip], list[np.ndarray]]:
    """Read the first clips of each corpus, the same number of each."""
    clips, audio = [], []
    for corpus in config.corpora:
        for clip in islice(_alone(corpus, config), max(1, num_clips // len(config.corpora))):
            heard, failures = read_clip(clip)
            if heard is None:
                logger.warning("%s is left out: %s", clip.id, failures[0].message)
                continue
            clips.append(clip)
            audio.append(heard[1])
    return clips, audio


def _alone(corpus: CorpusConfig, config: PipelineConfig) -> Iterator[Clip]:
    """Make clips of one utterance each; long ones are left out, however the run would cut them."""
    rules = dataclasses.replace(config.clips, pack="no", long="reject")
    for entry in read(corpus):
        if isinstance(entry, Utterance):
            yield from make_clips([entry], rules, find_speech).clips
