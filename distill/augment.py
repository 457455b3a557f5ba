"""Changes to the sound of a clip while training: speed, noise, masks over the spectrogram.

Teacher and student hear the same changed clip, so the teacher's answer fits it (the "consistent"
half of patient and consistent teaching, Beyer et al., 2022). What is drawn for a clip depends on
its key, which is (seed, epoch, copy, clip id), and on nothing else. Speed is drawn before the batch
is made, because it changes how long the clip is; noise and masks when its sound is decoded.
"""

import dataclasses
import functools
import random
from pathlib import Path

import numpy as np
import soxr
from torch import Tensor

from distill.data_config import AugmentConfig
from pipeline.audio import load_audio
from pipeline.schema import MAX_CLIP_SECONDS, SAMPLE_RATE, Sample

NOISE_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}
FRAMES_PER_SECOND = 100


def draw_speed(config: AugmentConfig, seconds: float, key: str) -> float:
    """Return how many times faster the clip is played; 1 where it would no longer fit in 30 s."""
    rng = random.Random(f"{key}-speed")
    if rng.random() >= config.speed_probability:
        return 1.0
    if config.speeds:
        speed = rng.choice(config.speeds)
    else:
        speed = rng.uniform(config.min_speed, config.max_speed)
    return speed if seconds / speed <= MAX_CLIP_SECONDS else 1.0


def at_speed(sample: Sample, speed: float) -> Sample:
    """Move what is known of a clip's times to where they are when it is played at a speed."""
    if speed == 1.0:
        return sample
    return dataclasses.replace(
        sample,
        duration_seconds=sample.duration_seconds / speed,
        segments=tuple(
            dataclasses.replace(s, start=s.start / speed, end=s.end / speed)
            for s in sample.segments
        ),
        utterances=tuple(
            dataclasses.replace(u, start=u.start / speed, duration=u.duration / speed)
            for u in sample.utterances
        ),
    )


def change_sound(audio: np.ndarray, config: AugmentConfig, speed: float, key: str) -> np.ndarray:
    """Play a clip, float32 (samples,), at a speed and perhaps with noise."""
    if speed != 1.0:
        audio = soxr.resample(audio, SAMPLE_RATE * speed, SAMPLE_RATE)[
            : round(MAX_CLIP_SECONDS * SAMPLE_RATE)
        ]
    rng = random.Random(f"{key}-noise")
    if config.noise is None or rng.random() >= config.noise_probability:
        return audio
    noise = cut_noise(load_noise(rng.choice(noise_files(config.noise))), audio.size, rng)
    return mix(audio, noise, rng.uniform(config.min_snr_db, config.max_snr_db))


def mix(audio: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add noise at a signal-to-noise ratio; where one of the two is silent, there is no ratio."""
    powers = [float(np.mean(np.square(sound, dtype=np.float64))) for sound in (audio, noise)]
    if min(powers) == 0.0:
        return audio
    gain = (powers[0] / powers[1] / 10 ** (snr_db / 10)) ** 0.5
    return (audio + gain * noise).astype(np.float32)


def cut_noise(noise: np.ndarray, num_samples: int, rng: random.Random) -> np.ndarray:
    """Take so many samples from anywhere in a noise; a short one goes round."""
    first = rng.randrange(noise.size)
    return noise[np.arange(first, first + num_samples) % noise.size]


@functools.lru_cache(maxsize=64)
def load_noise(path: Path) -> np.ndarray:
    """Read a noise; the last few stay in memory."""
    return load_audio(path)


@functools.cache
def noise_files(folder: str) -> list[Path]:
    """List the sound files in a folder and below it, as MUSAN is laid out.

    Raises:
        ValueError: there are none.
    """
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in NOISE_SUFFIXES)
    if not files:
        raise ValueError(
            f"data.augment.noise is {folder!r}, but no sound file lies in it or below it; "
            f"those are {', '.join(sorted(NOISE_SUFFIXES))}"
        )
    return files


def mask_features(features: Tensor, seconds: float, config: AugmentConfig, key: str) -> None:
    """Cover stripes of a clip's log-mel features (mels, frames), in place, with their mean.

    The stripes of SpecAugment (Park et al., 2019), without warping, over the clip and not over the
    silence behind it.
    """
    if not config.time_masks and not config.mel_masks:
        return
    rng = random.Random(f"{key}-masks")
    num_mels, num_frames = features.shape
    num_frames = min(num_frames, max(1, round(seconds * FRAMES_PER_SECOND)))
    clip = features[:, :num_frames]
    mean = clip.mean()
    for _ in range(config.time_masks):
        longest = min(
            config.max_time_mask_seconds * FRAMES_PER_SECOND,
            num_frames * config.max_time_mask_share,
        )
        first, width = _stripe(num_frames, int(longest), rng)
        clip[:, first : first + width] = mean
    for _ in range(config.mel_masks):
        first, width = _stripe(num_mels, min(config.max_mel_mask, num_mels), rng)
        clip[first : first + width] = mean


def _stripe(size: int, longest: int, rng: random.Random) -> tuple[int, int]:
    width = rng.randint(0, longest)
    return rng.randint(0, size - width), width
