"""Synthetic speakers: text to sound with espeak-ng, then the room, the telephone and the noise.

Only the makers of the embedded corpus need this module and the espeak-ng program; users of the
corpus read the finished recordings. Everything random comes from the generator passed in.
"""

import io
import random
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soundfile
import soxr

from pipeline.schema import SAMPLE_RATE

ACCENTS = (
    "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd",
    "en-us-nyc",
)  # fmt: skip
VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Alex",
    "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Jacky", "Lee", "Marco",
    "Mario", "Michael", "Mike", "adam", "anika", "antonio", "aunty", "belinda", "benjamin",
    "boris", "caleb", "david", "ed", "edward", "gustave", "iven", "john", "kaukovalta", "klatt",
    "klatt2", "linda", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul",
    "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "travis", "victor", "zac",
    "grandma", "grandpa",
)  # fmt: skip

OPUS_COMPRESSION = 0.96
"""libsndfile's scale from 0 to 1; about 16 kbit/s for 16 kHz mono."""

NoiseKind = Literal["white", "pink", "hum"]


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One synthetic speaker: accent, timbre (espeak-ng's variant), pitch 0-99 and speed."""

    accent: str
    variant: str
    pitch: int
    words_per_minute: int

    @property
    def name(self) -> str:
        """Accent and timbre, as the manifests name the speaker."""
        return f"{self.accent}-{self.variant}"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What happened to the sound on its way; `snr_db` is None where no noise was added."""

    telephone: bool = False
    noise: NoiseKind | None = None
    snr_db: float | None = None

    def __str__(self) -> str:
        noise = f"{self.noise} noise at {self.snr_db:g} dB" if self.noise else ""
        return " and ".join(filter(None, ["telephone" if self.telephone else "", noise])) or "clean"


def random_voice(rng: random.Random, variants: tuple[str, ...]) -> Voice:
    """Draw a speaker among the given timbres, with any accent, pitch and speed."""
    return Voice(
        accent=rng.choice(ACCENTS),
        variant=rng.choice(variants),
        pitch=rng.randint(25, 75),
        words_per_minute=rng.randint(125, 195),
    )


def speak(text: str, voice: Voice) -> np.ndarray:
    """Return the text as the voice speaks it, shape (samples,), 16 kHz, without silence around."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError("espeak-ng is not installed; on Debian: apt-get install espeak-ng")
    command = [program, "-v", f"{voice.accent}+{voice.variant}", "-p", str(voice.pitch)]
    command += ["-s", str(voice.words_per_minute), "--stdout", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    samples = soxr.resample(samples, rate, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    if loud.size == 0:
        raise ValueError(f"{voice} said nothing for {text!r}")
    return scale(samples[loud[0] : loud[-1] + SAMPLE_RATE // 20], -23.0)


def scale(samples: np.ndarray, level_db: float) -> np.ndarray:
    """Bring the root mean square to `level_db` relative to full scale."""
    rms = np.sqrt(np.mean(samples**2)) + 1e-9
    return (samples * (10 ** (level_db / 20) / rms)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    """Return zeros, shape (samples,)."""
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)


def noise(kind: NoiseKind, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return unit-variance noise: white, pink (1/f), or a mains hum with its harmonics."""
    if kind == "white":
        return rng.standard_normal(num_samples).astype(np.float32)
    if kind == "pink":
        spectrum = np.fft.rfft(rng.standard_normal(num_samples))
        spectrum /= np.sqrt(np.maximum(np.arange(spectrum.size), 20 * num_samples / SAMPLE_RATE))
        pink = np.fft.irfft(spectrum, num_samples)
        return (pink / pink.std()).astype(np.float32)
    seconds = np.arange(num_samples) / SAMPLE_RATE
    harmonics = rng.uniform(0.1, 1.0, size=8)
    hum = sum(a * np.sin(2 * np.pi * 50 * (k + 1) * seconds) for k, a in enumerate(harmonics))
    hum = hum + 0.2 * rng.standard_normal(num_samples)
    return (hum / hum.std()).astype(np.float32)


def degrade(samples: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
    """Apply a condition: the telephone's band (300 to 3400 Hz) first, then noise at the SNR."""
    if condition.telephone:
        narrow = soxr.resample(soxr.resample(samples, SAMPLE_RATE, 6800), 6800, SAMPLE_RATE)
        spectrum = np.fft.rfft(narrow, samples.size)
        spectrum[: round(300 * samples.size / SAMPLE_RATE)] = 0
        samples = np.fft.irfft(spectrum, samples.size).astype(np.float32)
    if condition.noise is None or condition.snr_db is None:
        return samples
    speech = samples[np.abs(samples) > 1e-4]
    power = float(np.sqrt(np.mean(speech**2))) if speech.size else 10 ** (-23 / 20)
    level = power * 10 ** (-condition.snr_db / 20)
    return samples + level * noise(condition.noise, samples.size, rng)


def random_condition(
    rng: random.Random, snr_db: tuple[float, ...], noisy_share: float = 0.4
) -> Condition:
    """Draw a condition: so many of them noisy, some through the telephone, the rest clean."""
    noisy = rng.random() < noisy_share
    return Condition(
        telephone=rng.random() < 0.15,
        noise=rng.choice(("white", "pink", "hum")) if noisy else None,
        snr_db=rng.choice(snr_db) if noisy else None,
    )


def encode_opus(samples: np.ndarray) -> bytes:
    """Return the sound as an Ogg Opus file."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        samples,
        SAMPLE_RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=OPUS_COMPRESSION,
    )
    return buffer.getvalue()


def decode_opus(data: bytes) -> np.ndarray:
    """Return the samples of such a file, float32, shape (samples,)."""
    return soundfile.read(io.BytesIO(data), dtype="float32")[0]
