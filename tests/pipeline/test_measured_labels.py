"""What the rules are worth on labels that a real teacher made of audio with known defects.

A clip is bad where a defect was planted in it, or where its label is further than the threshold
from what was said, which is known. So `wer` is right wherever it rejects a wrong reference or a
wrong label, and wrong where it rejects a good pair; the other rules see the evidence of a teacher
and not numbers that were made up for them.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.blocks import label_block
from pipeline.config import (
    BlocksConfig,
    CorpusConfig,
    DecodingConfig,
    FilterConfig,
    PipelineConfig,
    TeacherConfig,
)
from pipeline.layout import Layout
from pipeline.ledger import LedgerRow, read_ledger
from pipeline.measures import RuleMeasure, measure
from pipeline.plan import make_plan
from pipeline.schema import EMBEDDED_FOLDER
from pipeline.scoring import score
from pipeline.sweep import judge
from tests.corrupted import corrupt
from tests.shared_data import ABSENT, SPEECH, TEACHER

pytest.importorskip("ctranslate2", reason="needs whisper-distillery[fast]")

GOOD = 80
CLIPS = 24
DEFAULT = FilterConfig()


def label(manifest: Path, output: Path, model: str) -> list[LedgerRow]:
    """Return what a teacher says of a manifest."""
    config = PipelineConfig(
        output=str(output),
        corpora=[CorpusConfig(name="mine", kind="manifest", path=str(manifest), licence="cc0-1.0")],
        teacher=TeacherConfig(
            model=model,
            engine="ctranslate2",
            device="cpu",
            dtype="float32",
            window="clip",
            canary=False,
        ),
        decoding=DecodingConfig(temperatures=(0.0,)),  # again at higher ones takes minutes
        blocks=BlocksConfig(minutes=60),
    )
    plan = make_plan(config, "0")
    (block,) = plan.blocks
    label_block(block, config, plan.keys)
    return read_ledger(Layout(output).ledger(plan.keys.label_key, block.id))[0]


def measured(
    rows: list[LedgerRow], defects: dict[str, str], spoken: dict[str, str]
) -> dict[str, RuleMeasure]:
    """Measure the default rules; `spoken` is what was said, of clips without a defect."""
    bad = np.array(
        [
            row.id in defects
            or score(spoken[row.id], row.pseudo_label, "en").rate > DEFAULT.max_wer
            for row in rows
        ]
    )
    return {m.reason: m for m in measure(judge(rows, DEFAULT).verdicts, bad)}


def share_rejected(rows: list[LedgerRow], defects: dict[str, str], kind: str) -> float:
    """Return the share of the defects of a kind that any rule finds."""
    verdicts = zip(rows, judge(rows, DEFAULT).verdicts, strict=True)
    mine = [bits != 0 for row, bits in verdicts if defects.get(row.id) == kind]
    assert mine
    return sum(mine) / len(mine)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[list[LedgerRow], dict[str, str], dict[str, str]]:
    """The planted defects of the embedded corpus and some good clips, as the embedded teacher hears
    them; the defects by id; what was said in all clips."""
    folder = tmp_path_factory.mktemp("planted")
    listed = [json.loads(line) for line in (EMBEDDED_FOLDER / "planted.jsonl").open()]
    defects = {d["id"]: d["defect"] for d in listed if d["defect"] != "corrupt_file"}
    lines = [json.loads(line) for line in (EMBEDDED_FOLDER / "train.jsonl").open()]
    good = [x for x in lines if x["id"] not in {d["id"] for d in listed}]
    chosen = [x for x in lines if x["id"] in defects] + good[:: len(good) // GOOD]
    for line in chosen:
        line["audio_filepath"] = str(EMBEDDED_FOLDER / line["audio_filepath"])
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in chosen))
    rows = label(folder / "train.jsonl", folder / "out", "embedded")
    assert len(rows) == len(chosen)
    return rows, defects, {x["id"]: x["text"] for x in chosen}


@pytest.mark.slow
def test_every_rule_is_right_on_the_planted_defects(planted):
    found = measured(*planted)
    assert {"wer", "empty_label"} <= set(found)
    assert {reason: m.precision for reason, m in found.items() if m.precision < 0.95} == {}
    assert found["any"].recall >= 0.98
    assert found["wer"].adds >= 64  # wrong references, which no other rule sees


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wrong_reference", "truncated_audio", "no_speech"])
def test_planted_defects_are_found(planted, kind):
    rows, defects, _ = planted
    assert share_rejected(rows, defects, kind) >= 0.95


@pytest.mark.slow
def test_without_references_silence_is_still_found_and_good_clips_stay(planted):
    rows, defects, spoken = planted
    blank = {"reference": "", "metric": "", "wer": None, "cer": None}
    unlabelled = [replace(row, **blank) for row in rows]
    found = measured(unlabelled, defects, spoken)
    assert share_rejected(unlabelled, defects, "no_speech") >= 0.95
    assert found["any"].precision >= 0.95
    assert "wer" not in found


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["en_kathleen", "en_speechocean_train"])
def test_every_rule_is_right_on_real_speech_with_corrupted_references(corpus, tmp_path):
    if not TEACHER.is_dir() or not SPEECH.is_dir():
        pytest.skip(ABSENT)
    made = corrupt(SPEECH / corpus / "manifest.jsonl", tmp_path / "train.jsonl", CLIPS)
    rows = label(made.manifest, tmp_path / "out", str(TEACHER))
    found = measured(rows, made.kinds, made.spoken)
    assert {reason: m.precision for reason, m in found.items() if m.precision < 0.95} == {}
    for kind in set(made.kinds.values()):
        assert share_rejected(rows, made.kinds, kind) >= 0.9, kind
