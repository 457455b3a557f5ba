"""The corpus and the teacher that ship with the package are what their descriptions say."""

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import soundfile
import transformers

from pipeline.audio import load_audio
from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.embedded import text
from pipeline.embedded.corpus import DEFECT_SHARES, HELD_OUT_VARIANTS, VOICES
from pipeline.embedded.speech import VARIANTS, Condition, degrade, noise
from pipeline.embedded.teacher_data import known_sentences
from pipeline.schema import EMBEDDED_FOLDER, SAMPLE_RATE
from pipeline.scoring import corpus_rate, score
from pipeline.teacher import Label, load_teacher, resolve_revision

PARTS = ("train", "validation", "test")


def lines(name: str) -> list[dict[str, Any]]:
    content = (EMBEDDED_FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize(("part", "minutes"), [("train", 60), ("validation", 10), ("test", 15)])
def test_a_part_has_the_speech_it_promises(part: str, minutes: float) -> None:
    assert sum(line["duration"] for line in lines(part)) >= minutes * 60


def test_speakers_occur_in_one_part_only() -> None:
    speakers = {part: {line["speaker"] for line in lines(part)} - {"unknown"} for part in PARTS}
    assert sum(len(names) for names in speakers.values()) == len(set.union(*speakers.values()))
    assert [len(speakers[part]) for part in PARTS] == [12, 4, 8]


def test_sentences_of_the_test_part_occur_nowhere_else() -> None:
    said = {part: Counter(line["text"] for line in lines(part)) for part in PARTS}
    assert not said["test"].keys() & (said["train"].keys() | said["validation"].keys())
    assert max(said["test"].values()) == 1


def test_the_teachers_own_training_leaves_voices_and_sentences_out() -> None:
    held_out = {voice[1] for part in ("validation", "test") for voice in VOICES[part]}
    assert held_out == HELD_OUT_VARIANTS < set(VARIANTS)
    assert all(
        sentence in known_sentences()
        for line in lines("test")
        for sentence in line["text"].replace("? ", "?|").replace(". ", ".|").split("|")
    )


def test_planted_defects_are_listed_in_the_shares_promised() -> None:
    train = {line["id"] for line in lines("train")}
    planted = lines("planted")
    assert {line["id"] for line in planted} <= train
    counts = Counter(line["defect"] for line in planted)
    assert counts["corrupt_file"] >= 1
    for defect, wanted in DEFECT_SHARES.items():
        assert counts[defect] / len(train) == pytest.approx(wanted, abs=0.015)


def test_a_planted_wrong_reference_is_not_what_was_said() -> None:
    texts = {line["id"]: line["text"] for line in lines("train")}
    wrong = [line for line in lines("planted") if line["defect"] == "wrong_reference"]
    assert all(score(texts[w["id"]], w["spoken"], "en").wer > 0.1 for w in wrong)


def test_recordings_hold_what_the_manifest_says_but_for_the_corrupt_one() -> None:
    last = {line["audio_filepath"]: line for part in PARTS for line in lines(part)}
    for path, line in last.items():
        if line["condition"] == "corrupt file":
            with pytest.raises(soundfile.LibsndfileError):
                soundfile.info(EMBEDDED_FOLDER / path)
            continue
        assert soundfile.info(EMBEDDED_FOLDER / path).samplerate == SAMPLE_RATE
        audio = load_audio(EMBEDDED_FOLDER / path, line["offset"], line["duration"])
        assert audio.size == pytest.approx(line["duration"] * SAMPLE_RATE, abs=2)


def test_corpus_and_teacher_fit_the_repository() -> None:
    megabytes = sum(f.stat().st_size for f in (EMBEDDED_FOLDER / "audio").iterdir()) / 1e6
    assert megabytes <= 15
    assert (EMBEDDED_FOLDER / "teacher" / "model.safetensors").stat().st_size <= 12e6


def test_the_grammar_says_the_same_for_the_same_seed() -> None:
    assert text.sentences(50, 3, 4, 20) == text.sentences(50, 3, 4, 20)
    assert text.sentences(50, 3, 4, 20) != text.sentences(50, 4, 4, 20)


def test_noise_is_added_at_the_stated_ratio() -> None:
    rng = np.random.default_rng(0)
    speech = noise("pink", SAMPLE_RATE * 4, rng) * 0.05
    noisy = degrade(speech, Condition(noise="white", snr_db=10.0), rng)
    ratio = 10 * np.log10(np.mean(speech**2) / np.mean((noisy - speech) ** 2))
    assert ratio == pytest.approx(10.0, abs=0.2)


def test_the_telephone_keeps_its_band_only() -> None:
    speech = noise("white", SAMPLE_RATE * 4, np.random.default_rng(0))
    spectrum = np.abs(
        np.fft.rfft(degrade(speech, Condition(telephone=True), np.random.default_rng(1)))
    )
    hertz = np.fft.rfftfreq(speech.size, 1 / SAMPLE_RATE)
    inside = spectrum[(hertz > 400) & (hertz < 3000)].mean()
    assert spectrum[hertz < 250].mean() < 0.01 * inside
    assert spectrum[hertz > 4000].mean() < 0.01 * inside


def test_the_teacher_is_a_whisper_of_the_promised_size() -> None:
    config = transformers.WhisperConfig.from_pretrained(EMBEDDED_FOLDER / "teacher")
    assert min(config.encoder_layers, config.decoder_layers) >= 4
    assert (config.num_mel_bins, config.max_source_positions) == (80, 1500)


def heard(
    config: TeacherConfig, silence_seconds: float = 0.0, every: int = 1
) -> list[tuple[dict[str, Any], Label]]:
    """Label the test part, or every so-many-th of it, with silence before each utterance."""
    teacher = load_teacher(config, DecodingConfig(), resolve_revision(config))
    spoken = sorted(lines("test")[::every], key=lambda line: line["duration"])
    silence = np.zeros(round(silence_seconds * SAMPLE_RATE), np.float32)
    found = []
    for first in range(0, len(spoken), 16):
        batch = spoken[first : first + 16]
        audio = [
            load_audio(EMBEDDED_FOLDER / b["audio_filepath"], b["offset"], b["duration"])
            for b in batch
        ]
        labels = teacher.label([np.concatenate([silence, a]) for a in audio], "en")
        found += zip(batch, labels, strict=True)
    return found


IN_SHORT_WINDOWS = TeacherConfig(
    num_threads=2, engine="ctranslate2", dtype="float32", window="clip"
)
IN_WINDOWS_OF_30_SECONDS = TeacherConfig(num_threads=2, engine="transformers", dtype="float32")


@pytest.mark.parametrize(
    ("config", "every"),
    [(IN_SHORT_WINDOWS, 1), (IN_WINDOWS_OF_30_SECONDS, 3)],
    ids=["all, in short windows", "a third, in windows of 30 s"],
)
def test_the_teacher_recognises_unseen_speakers(config: TeacherConfig, every: int) -> None:
    found = heard(config, every=every)
    assert corpus_rate([score(line["text"], label.text, "en") for line, label in found]) <= 0.10


def test_the_teacher_dates_what_it_hears() -> None:
    """Segments start and end with the speech, also where it does not begin at once."""
    errors = []
    for line, label in heard(IN_SHORT_WINDOWS, silence_seconds=1.0):
        if label.segments:
            errors.append(abs(label.segments[0].start - 1.0))
            errors.append(abs(label.segments[-1].end - 1.0 - line["duration"]))
    assert np.median(errors) <= 0.1
    assert np.mean(np.array(errors) <= 0.3) >= 0.9


def test_the_summary_refuses_what_is_not_a_finished_run(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.embedded.summary", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "not a finished dataset" in done.stderr
