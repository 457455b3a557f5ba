"""Log-mel features as Whisper was trained on, in numpy: one function for teachers and students.

The numbers are those of transformers' extractor. What is silence because the clip is shorter than
its window is not transformed at all but filled in, so a short clip costs what it is long.
"""

import functools
from collections.abc import Iterable

import numpy as np

from pipeline.schema import SAMPLE_RATE

HOP_SAMPLES = 160
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_SAMPLES
MAX_FRAMES = 30 * FRAMES_PER_SECOND

_FFT_SAMPLES = 400
_LEAST_POWER = np.float32(1e-10)
_FLOOR = float(np.log10(_LEAST_POWER))
_RANGE = 8.0
"""What is quieter than the loudest by more is cut off there."""


def log_mel(clip: np.ndarray, *, num_mels: int, num_frames: int = MAX_FRAMES) -> np.ndarray:
    """Return a clip's features, padded with silence to the window.

    Args:
        clip: float32 mono 16 kHz, at most as long as the window.
        num_mels: as the model has them, 80 or 128.
        num_frames: length of the window, 10 ms each.

    Returns:
        float32 of shape [num_mels, num_frames].

    Raises:
        ValueError: the clip is longer than the window, or not one row of samples.
    """
    if clip.ndim != 1 or len(clip) > num_frames * HOP_SAMPLES:
        raise ValueError(
            f"a clip must be one row of at most {num_frames * HOP_SAMPLES} samples, "
            f"got shape {clip.shape}"
        )
    half = _FFT_SAMPLES // 2
    heard = min(num_frames, (len(clip) + half) // HOP_SAMPLES + 1)
    padded = np.zeros(num_frames * HOP_SAMPLES, dtype=np.float32)
    padded[: len(clip)] = clip
    around = np.pad(padded, half, mode="reflect")[: (heard - 1) * HOP_SAMPLES + _FFT_SAMPLES]
    frames = np.lib.stride_tricks.sliding_window_view(around, _FFT_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(frames * _window(), axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    logarithm = np.log10(np.maximum(_filters(num_mels) @ power.T, _LEAST_POWER))
    loudest = max(float(logarithm.max(initial=_FLOOR)), _FLOOR)
    features = np.full((num_mels, num_frames), _FLOOR, dtype=np.float32)
    features[:, :heard] = logarithm
    return (np.maximum(features, loudest - _RANGE) + 4.0) / 4.0


def log_mels(
    clips: Iterable[np.ndarray], *, num_mels: int, num_frames: int = MAX_FRAMES
) -> np.ndarray:
    """Return the features of a batch, [clips, num_mels, num_frames]; what is longer is cut off."""
    return np.stack(
        [
            log_mel(clip[: num_frames * HOP_SAMPLES], num_mels=num_mels, num_frames=num_frames)
            for clip in clips
        ]
    )


@functools.cache
def _window() -> np.ndarray:
    """Return the periodic Hann window."""
    phase = 2 * np.pi * np.arange(_FFT_SAMPLES) / _FFT_SAMPLES
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


@functools.cache
def _filters(num_mels: int) -> np.ndarray:
    """Return the triangular filters on Slaney's mel scale, of unit area: [num_mels, 201]."""
    hertz = np.fft.rfftfreq(_FFT_SAMPLES, 1 / SAMPLE_RATE)
    borders = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(SAMPLE_RATE / 2), num_mels + 2))
    widths = np.diff(borders)
    slopes = borders[:, None] - hertz[None, :]
    rising, falling = -slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (borders[2:] - borders[:-2]))[:, None]).astype(np.float32)


_LINEAR_HERTZ = 200.0 / 3
_BREAK_HERTZ = 1000.0
_BREAK_MEL = _BREAK_HERTZ / _LINEAR_HERTZ
_LOG_STEP = np.log(6.4) / 27.0


def _hertz_to_mel(hertz: float) -> float:
    """Linear up to 1 kHz, logarithmic above."""
    return float(_BREAK_MEL + np.log(hertz / _BREAK_HERTZ) / _LOG_STEP)


def _mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    """Undo `_hertz_to_mel`, below 1 kHz too."""
    above = _BREAK_HERTZ * np.exp(_LOG_STEP * (mels - _BREAK_MEL))
    return np.where(mels >= _BREAK_MEL, above, mels * _LINEAR_HERTZ)
