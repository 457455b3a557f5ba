"""Noise at a given ratio to the speech, the same in every run and for every model."""

import hashlib
from pathlib import Path

import numpy as np

from distill.recordings import SUFFIXES
from pipeline.audio import load_audio
from pipeline.schema import SAMPLE_RATE

_NUM_TALKERS = 8
_SYLLABLES_PER_SECOND = 4.0


class Noise:
    """A kind of noise: white, pub, or what is recorded in a folder."""

    def __init__(self, kind: str) -> None:
        """Read the folder, if it is one.

        Raises:
            ValueError: it is neither a kind nor a folder with recordings.
        """
        self.kind = kind
        self._recorded: list[np.ndarray] = []
        if kind not in ("white", "pub"):
            files = sorted(f for f in Path(kind).glob("*") if f.suffix.lower() in SUFFIXES)
            if not files:
                raise ValueError(
                    f"noise {kind!r} is neither white, pub, nor a folder of recordings"
                )
            self._recorded = [load_audio(file) for file in files]

    def make(self, num_samples: int, seed: int) -> np.ndarray:
        """Return noise of power 1, the same for the same seed."""
        if self.kind == "white":
            return white_noise(num_samples, seed)
        if self.kind == "pub":
            return pub_noise(num_samples, seed)
        rng = np.random.default_rng(seed)
        recorded = self._recorded[rng.integers(len(self._recorded))]
        first = int(rng.integers(len(recorded)))
        return _unit(np.resize(np.roll(recorded, -first), num_samples))


def add_noise(speech: np.ndarray, noise: Noise, snr: float, key: str, seed: int) -> np.ndarray:
    """Mix noise into speech at a ratio in dB; `key` (the clip's id) and `seed` choose the noise.

    The mixture is turned down where it would be clipped.
    """
    digest = hashlib.sha256(f"{seed}/{noise.kind}/{key}".encode()).digest()
    found = noise.make(len(speech), int.from_bytes(digest[:8], "big"))
    power = float(np.mean(np.square(speech, dtype=np.float64)))
    mixed = speech + found * np.sqrt(power / 10 ** (snr / 10))
    peak = float(np.abs(mixed).max())
    return (mixed / max(peak, 1.0)).astype(np.float32)


def white_noise(num_samples: int, seed: int) -> np.ndarray:
    """Return white noise of power 1."""
    return _unit(np.random.default_rng(seed).normal(size=num_samples))


def pub_noise(num_samples: int, seed: int) -> np.ndarray:
    """Return what a pub sounds like from inside, of power 1.

    Eight talkers of speech-shaped noise, each rising and falling with its own syllables and pauses,
    and now and then a glass.
    """
    rng = np.random.default_rng(seed)
    frequencies = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE)
    shape = 1 / (1 + (frequencies / 500) ** 2) * (frequencies > 80)
    time = np.arange(num_samples) / SAMPLE_RATE
    total = np.zeros(num_samples)
    for _ in range(_NUM_TALKERS):
        voice = np.fft.irfft(np.fft.rfft(rng.normal(size=num_samples)) * shape, num_samples)
        rate, phase = _SYLLABLES_PER_SECOND * rng.uniform(0.7, 1.3), rng.uniform(0, 2 * np.pi)
        syllables = np.square(np.sin(np.pi * rate * time + phase))
        pauses = np.sin(2 * np.pi * rng.uniform(0.1, 0.3) * time + rng.uniform(0, 6.28)) > -0.4
        total += voice * syllables * pauses * rng.uniform(0.4, 1.0)
    total = _unit(total)
    for _ in range(rng.poisson(num_samples / SAMPLE_RATE / 4)):
        begin = int(rng.integers(num_samples))
        ring = time[: num_samples - begin]
        glass = np.sin(2 * np.pi * rng.uniform(2000, 4000) * ring) * np.exp(-30 * ring)
        total[begin:] += rng.uniform(0.5, 2.0) * glass
    return _unit(total)


def _unit(samples: np.ndarray) -> np.ndarray:
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return samples / np.sqrt(power) if power else samples
