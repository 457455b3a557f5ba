"""Corpora whose references are wrong in known places, made of corpora without such errors."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = {"other": 0.10, "half": 0.05, "words": 0.05}
"""Shares of the references: that of another utterance, without its second half, or with every third
word from elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """What was done to a manifest."""

    manifest: Path
    kinds: dict[str, str]
    """Of the corrupted utterances, by id."""
    spoken: dict[str, str]
    """The text that was said, of every utterance by id."""


def corrupt(source: Path, manifest: Path, num_clips: int, seed: int = 0) -> Corrupted:
    """Write a manifest of clips spread evenly over another one, a fifth with a wrong reference.

    Args:
        source: a manifest with NeMo's field names.
        manifest: where to write; the audio stays where it is.
        num_clips: how many; all of them where there are fewer.
        seed: decides which references are corrupted, and how.
    """
    lines: list[dict[str, Any]] = [json.loads(line) for line in source.open(encoding="utf-8")]
    count = min(num_clips, len(lines))
    chosen = [lines[i * len(lines) // count] for i in range(count)]
    spoken = {line["id"]: line["text"] for line in chosen}
    rng = random.Random(seed)
    kinds: dict[str, str] = {}
    written = []
    for line in chosen:
        (kind,) = rng.choices(["", *KINDS], [1 - sum(KINDS.values()), *KINDS.values()])
        text = _wrong(kind, line["text"], rng.choice(lines)["text"], rng)
        if text.split() != line["text"].split():
            kinds[line["id"]] = kind
        audio = str((source.parent / line["audio_filepath"]).resolve())
        written.append(json.dumps({**line, "audio_filepath": audio, "text": text}))
    manifest.write_text("\n".join(written) + "\n", encoding="utf-8")
    return Corrupted(manifest=manifest, kinds=kinds, spoken=spoken)


def _wrong(kind: str, text: str, other: str, rng: random.Random) -> str:
    words, others = text.split(), other.split()
    match kind:
        case "other":
            return other
        case "half":
            return " ".join(words[: -(-len(words) // 2)])
        case "words":
            mixed = [rng.choice(others) if i % 3 == 0 else w for i, w in enumerate(words)]
            return " ".join(mixed)
    return text
