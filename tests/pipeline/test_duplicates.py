import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.agreement import disagreements
from pipeline.context import needs_ledger, read_context, warn_of_strangers, with_ledger
from pipeline.duplicates import find_duplicates, read_evaluation_sets
from pipeline.filters import FilterConfig, rejection
from pipeline.ledger import write_ledger
from pipeline.pieces import pieces
from pipeline.schema import SCHEMA_VERSION, ClipUtterance, Index, Sample, Totals, to_json
from pipeline.shards import write_shard

ROW = Sample(
    id="u", corpus="c", split="train", language="en", language_probability=1.0, speaker="",
    licence="cc0-1.0", recording="a.wav", start_seconds=0.0, duration_seconds=3.0, utterances=(),
    reference="one sentence of the corpus", pseudo_label="One sentence of the corpus.",
    tokens=(), segments=(), previous_pseudo_label="", wer=0.0, cer=0.0, metric="wer",
    substitutions=0, deletions=0, insertions=0, avg_logprob=-0.2, no_speech_prob=0.0,
    compression_ratio=1.0, temperature=0.0, truncated=False, teacher="t", teacher_revision="0",
)  # fmt: skip
LONG = "every tuesday the boy from america ran home at two in the morning and slept"


def hashed(audio: str, **changes) -> Sample:
    """Return a row of one utterance with this hash of its audio."""
    row = replace(ROW, **changes)
    alone = ClipUtterance(
        id=row.id,
        start=0.0,
        duration=row.duration_seconds,
        reference=row.reference,
        pseudo_label=row.pseudo_label,
        audio_sha256=audio,
    )
    return replace(row, utterances=(alone,))


def test_the_same_audio_with_the_same_label_is_a_duplicate():
    rows = [
        hashed("x", id="first"),
        hashed("x", id="again", pseudo_label="one sentence, of the corpus"),
        hashed("x", id="heard otherwise", pseudo_label="a sentence of the corpus"),
        hashed("y", id="other audio"),
        hashed("", id="no hash"),
        hashed("", id="no hash either"),
        hashed("x", id="first", corpus="d"),
    ]
    assert find_duplicates(rows) == {
        ("c", "train", "again"): ("c", "train", "first"),
        ("d", "train", "first"): ("c", "train", "first"),
    }


def test_what_is_in_an_evaluation_split_leaves_the_training_part():
    config = FilterConfig(drop_duplicates=True)
    assert needs_ledger(config)
    rows = [hashed("x", id="train"), hashed("x", id="test", split="test")]
    context = with_ledger(read_context(config), config, lambda: rows)
    assert [rejection(row, config, context) for row in rows] == ["duplicate", None]


def test_speaking_rates_come_from_the_ledger():
    config = FilterConfig(speaking_rate="ledger")
    rows = [replace(ROW, id=str(i), duration_seconds=2.0) for i in range(120)]
    context = with_ledger(read_context(config), config, lambda: rows)
    fast = replace(ROW, duration_seconds=1.0)
    assert rejection(fast, config, context) == "speaking_rate"
    assert rejection(fast, FilterConfig()) is None


@pytest.mark.parametrize("kind", ["txt", "jsonl", "tar", "folder"])
def test_evaluation_sets_are_text_manifests_or_shards(kind, tmp_path: Path):
    path = tmp_path / f"set.{kind}"
    if kind == "txt":
        path.write_text(f"A short one of all.\n\n{LONG}\n")
    elif kind == "jsonl":
        lines = [{"text": "A short one of all."}, {"text": LONG, "lang": "en"}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        texts = ("A short one of all.", LONG)
        samples = [
            (replace(ROW, id=f"e{i}", reference=t), np.zeros(48_000, dtype=np.float32))
            for i, t in enumerate(texts)
        ]
        shard = path if kind == "tar" else path / "shards" / "a.tar"
        shard.parent.mkdir(parents=True, exist_ok=True)
        write_shard(shard, samples)
    config = FilterConfig(evaluation_sets=(str(path),), max_wer=9.0, speaking_rate="off")
    context = read_context(config)

    def why(label: str) -> str | None:
        return rejection(replace(ROW, pseudo_label=label), config, context)

    words = LONG.split()
    assert why(" ".join(["yesterday", *words[2:12], "again"])) == "contaminated"
    assert why(" ".join([*words[:9], "but", *words[10:]])) is None  # nine in a row
    assert why("a short one of all") == "contaminated"
    assert why("a short one of all that") is None
    assert why("nothing in common") is None


def test_texts_without_spaces_overlap_by_characters(tmp_path: Path):
    path = tmp_path / "set.jsonl"
    text = "昨日の夜は友達と一緒に新しい映画を見に行きました"
    path.write_text(json.dumps({"text": text, "lang": "ja"}))
    index = read_evaluation_sets([str(path)], 10)
    assert index.overlaps("ええ、" + text[:21], "ja")
    assert not index.overlaps(text[:15], "ja")


@pytest.mark.parametrize("name", ["set.txt", "set.jsonl"])
@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ja", "昨日の夜は友達と一緒に新しい映画を見に行きました"),
        ("fr", "l'été dernier nous avons passé dix jours à la mer près de Bâle"),
        ("en", LONG),
    ],
)
def test_texts_without_a_language_are_read_in_that_of_the_label(name, language, text, tmp_path):
    path = tmp_path / name
    line = text if path.suffix == ".txt" else json.dumps({"text": text})
    path.write_text(f"{line}\n", encoding="utf-8")
    context = read_context(FilterConfig(evaluation_sets=(str(path),)))
    label = replace(ROW, language=language, pseudo_label=text, duration_seconds=5.0)
    assert rejection(label, FilterConfig(evaluation_sets=(str(path),)), context) == "contaminated"
    assert context.contamination is not None
    assert not context.contamination.overlaps(text[: len(text) // 2], language)


@pytest.mark.parametrize("line", ['{"text": "x", "lang": "klingonese"}', '{"text": 5}', "[5]"])
def test_a_line_that_says_no_text_in_a_known_language_is_refused_by_its_number(line, tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=r"set.jsonl, line 1 is not a manifest line"):
        read_evaluation_sets([str(path)], 10)


def test_an_evaluation_set_that_cannot_be_read_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="none.txt does not exist"):
        read_context(FilterConfig(evaluation_sets=(str(tmp_path / "none.txt"),)))
    broken = tmp_path / "set.jsonl"
    broken.write_text('{"text": "fine"}\n{"words": "no"}\n')
    with pytest.raises(ValueError, match=r"line 2 is not a manifest line with a `text`"):
        read_context(FilterConfig(evaluation_sets=(str(broken),)))


def test_two_teachers_disagree_by_the_rate_between_their_labels():
    second = [
        replace(ROW, pseudo_label="one sentence of the chorus"),
        replace(ROW, id="moved", start_seconds=5.0),
        replace(ROW, id="silent", pseudo_label=""),
    ]
    rows = [
        ROW,
        replace(ROW, id="moved"),
        replace(ROW, id="silent", pseudo_label=""),
        replace(ROW, id="alone"),
    ]
    assert disagreements(rows, second) == {
        ("c", "train", "u"): pytest.approx(1 / 5),
        ("c", "train", "silent"): 0.0,
    }


def write_second(output: Path, *rows: Sample, key: str = "key") -> str:
    """Write a finished run of a second teacher; return its folder as the options name it."""
    part = output / "ledger" / key / "b.parquet"
    part.parent.mkdir(parents=True)
    write_ledger(part, rows, {})
    totals = Totals(
        planned=0, kept=0, rejected={}, failed={}, hours_planned=0.0, hours_kept=0.0,
        teacher_seconds=0.0, wall_seconds=0.0, rtfx=0.0,
    )  # fmt: skip
    index = Index(
        schema_version=SCHEMA_VERSION, created_with="", teacher={}, decoding={}, clips={},
        filter={}, label_key=key, shard_key="", shards=(), totals=totals,
    )  # fmt: skip
    (output / "index.json").write_text(to_json(index))
    return str(output)


def test_the_second_teacher_is_read_from_its_own_run(tmp_path: Path):
    folder = write_second(tmp_path / "a", replace(ROW, pseudo_label="something else was said"))
    config = FilterConfig(max_disagreement=0.2, second_ledger=folder)
    assert rejection(ROW, config, read_context(config)) == "disagreement"
    with pytest.raises(FileNotFoundError, match="second_ledger .*none holds no finished run"):
        read_context(FilterConfig(second_ledger=str(tmp_path / "none")))


def test_of_a_second_teacher_that_labelled_twice_the_last_labels_count(tmp_path: Path):
    write_second(tmp_path / "a", ROW, key="z-old")
    different = replace(ROW, pseudo_label="something else was said")
    folder = write_second(tmp_path / "a", different, key="a-new")
    config = FilterConfig(max_disagreement=0.2, second_ledger=folder)
    assert rejection(ROW, config, read_context(config)) == "disagreement"


def test_a_second_teacher_that_heard_packs_is_compared_utterance_by_utterance(tmp_path: Path):
    def pack(first: str, second: str) -> Sample:
        return replace(
            ROW,
            id="a_and_1_more",
            utterances=(
                ClipUtterance(id="a", start=0.0, duration=1.0, reference="", pseudo_label=first),
                ClipUtterance(id="b", start=1.0, duration=2.0, reference="", pseudo_label=second),
            ),
        )

    folder = write_second(tmp_path / "a", pack("red blue", "brown pink"))
    config = FilterConfig(max_disagreement=0.2, second_ledger=folder, speaking_rate="off")
    alone = [replace(piece, metric="") for piece in pieces(pack("red blue", "green white"))]
    context = read_context(config)
    assert [rejection(piece, config, context) for piece in alone] == [None, "disagreement"]


def test_a_second_teacher_that_heard_something_else_is_warned_of(tmp_path: Path, caplog):
    folder = write_second(tmp_path / "a", replace(ROW, id="other"), ROW)
    config = FilterConfig(max_disagreement=0.2, second_ledger=folder)
    known, unknown = ROW, replace(ROW, id="unknown")
    context = read_context(config)
    warn_of_strangers("block", [known, unknown, replace(unknown, split="test")], config, context)
    assert not caplog.records
    warn_of_strangers("block", [known, unknown, replace(unknown, id="too")], config, context)
    assert f"{folder} has labels for 1 of the 3 clips of block" in caplog.text
