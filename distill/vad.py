"""Where speech is in a recording, by Silero's detector, whose weights ship in its package."""

from typing import Any

from distill.windows import Audio, Region
from pipeline.schema import SAMPLE_RATE

_BLOCK = 512
"""Samples that the detector takes at once."""
_READ = 30 * SAMPLE_RATE // _BLOCK * _BLOCK
_MIN_SILENCE_MS = 500
_PAD_MS = 200


def speech_regions(audio: Audio) -> list[Region]:
    """Return stretches of speech in samples, in order; reads the recording to its end.

    Raises:
        ValueError: the detector is not installed.
    """
    try:
        import silero_vad
        import torch
    except ImportError as error:
        raise ValueError(
            "vad needs the `vad` extra: pip install whisper-distillery[vad]"
        ) from error
    model = silero_vad.load_silero_vad(onnx=True)
    detector: Any = silero_vad.VADIterator(
        model, min_silence_duration_ms=_MIN_SILENCE_MS, speech_pad_ms=_PAD_MS
    )
    regions: list[Region] = []
    start: int | None = None
    position = 0
    while (samples := audio.read(position, _READ)).size:
        for first in range(0, len(samples), _BLOCK):
            block = torch.zeros(_BLOCK)
            piece = samples[first : first + _BLOCK]
            block[: len(piece)] = torch.from_numpy(piece.copy())
            found = detector(block) or {}
            if "start" in found:
                start = int(found["start"])
                if regions and start < regions[-1][1]:  # the padding of two may overlap
                    start = regions.pop()[0]
            elif "end" in found and start is not None:
                regions.append((start, int(found["end"])))
                start = None
        position += len(samples)
    if start is not None:
        regions.append((start, position))
    return regions
