"""Write the golden shard that both packages are tested against: `python -m tests.make_golden`.

Six tones with made-up labels, through the real writer. Make it again only when the contract changes
on purpose: a reader that no longer reads the committed one has broken every dataset out there.
"""

from pathlib import Path

import numpy as np

from pipeline.schema import (
    SAMPLE_RATE,
    SCHEMA_VERSION,
    ClipUtterance,
    Index,
    Sample,
    Segment,
    Totals,
    to_json,
)
from pipeline.scoring import score
from pipeline.shards import write_shard

GOLDEN_FOLDER = Path(__file__).parent / "golden"

TEXTS = (
    ("a/golden.wav-000", "The colour of the sky.", "the color of the sky"),
    ("golden-001", "Twenty-one boats came home.", "21 boats came home"),
    ("golden-002", "They sold the old house.", "they sold an old house"),
    ("golden-003", "Café, naïve, Ærø.", "cafe naive aero"),
    ("golden-004", "One two three four.", "one two three"),
    ("golden-005", "", "nobody wrote this down"),
)


def tone(number: int) -> np.ndarray:
    """Return half a second or more of a sine, another one for each number."""
    time = np.arange(SAMPLE_RATE // 2 + number * 800) / SAMPLE_RATE
    return (0.25 * np.sin(2 * np.pi * 220 * (number + 1) * time)).astype(np.float32)


def golden_sample(number: int) -> Sample:
    """Return the sample of a tone; the last one has no reference and so no error rate."""
    clip_id, reference, label = TEXTS[number]
    seconds = tone(number).size / SAMPLE_RATE
    found = score(reference, label, "en") if reference else None
    return Sample(
        id=clip_id,
        corpus="golden",
        split="train",
        language="en",
        language_probability=1.0,
        speaker="tone",
        licence="cc0-1.0",
        recording="tones.wav",
        start_seconds=number * 2.0,
        duration_seconds=seconds,
        utterances=(ClipUtterance(id=clip_id, start=0.0, duration=seconds, reference=reference),),
        reference=reference,
        pseudo_label=label,
        tokens=(300 + number, 301, 320),
        segments=(Segment(start=0.0, end=0.5, text=label),),
        previous_pseudo_label=TEXTS[number - 1][2] if number else "",
        wer=round(found.wer, 4) if found else None,
        cer=round(found.cer, 4) if found else None,
        metric=found.metric if found else "",
        substitutions=found.substitutions if found else None,
        deletions=found.deletions if found else None,
        insertions=found.insertions if found else None,
        avg_logprob=-0.25,
        no_speech_prob=0.01,
        compression_ratio=0.9,
        temperature=0.0,
        truncated=False,
        teacher="golden",
        teacher_revision="0",
    )


def write_golden(folder: Path) -> None:
    """Write `shard.tar` and the `index.json` of a dataset that has it as its only shard."""
    numbers = range(len(TEXTS))
    entry = write_shard(folder / "shard.tar", ((golden_sample(n), tone(n)) for n in numbers))
    hours = round(entry.duration_seconds / 3600, 6)
    index = Index(
        schema_version=SCHEMA_VERSION,
        created_with="whisper-distillery",
        teacher={"model": "golden", "revision": "0"},
        decoding={"timestamps": True},
        clips={"max_seconds": 30.0},
        filter={"max_wer": 1.0},
        label_key="golden",
        shard_key="golden",
        shards=(entry,),
        totals=Totals(
            planned=entry.num_samples,
            kept=entry.num_samples,
            rejected={},
            failed={},
            hours_planned=hours,
            hours_kept=hours,
            teacher_seconds=1.0,
            wall_seconds=1.0,
            rtfx=entry.duration_seconds,
        ),
    )
    (folder / "index.json").write_text(to_json(index) + "\n", encoding="utf-8")


if __name__ == "__main__":
    GOLDEN_FOLDER.mkdir(exist_ok=True)
    write_golden(GOLDEN_FOLDER)
