"""The committed configurations read corpora of the layout that they are written for."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.audio import load_audio
from pipeline.breakdown import SplitReport
from pipeline.config import (
    BlocksConfig,
    ClipConfig,
    CorpusConfig,
    FilterConfig,
    PipelineConfig,
    TeacherConfig,
)
from pipeline.config_files import load_config
from pipeline.corpora import Utterance
from pipeline.plan import entries, make_plan
from pipeline.run import run
from tests.pipeline.conftest import write_tone
from tests.pipeline.corpora.test_folder import librispeech
from tests.pipeline.corpora.test_hub import peoples_speech
from tests.pipeline.corpora.test_kaldi import ami
from tests.pipeline.corpora.test_lhotse import recording, supervision, write
from tests.pipeline.corpora.test_parquet import hub_rows
from tests.pipeline.corpora.test_parquet import write as write_parquet
from tests.pipeline.corpora.test_stm import tedlium
from tests.pipeline.corpora.test_table import common_voice
from tests.pipeline.corpora.test_webdataset import sample, write_tar
from tests.shared_data import ABSENT, SPEECH

CONFIGS = Path(__file__).parents[3] / "configs/pipeline"
Made = dict[str, str]


def make_librispeech(root: Path) -> Made:
    return {"path": str(librispeech(root))}


def make_common_voice(root: Path) -> Made:
    return {"path": str(common_voice(root)), "audio": str(root / "clips")}


def make_gigaspeech(root: Path) -> Made:
    (root / "audio").mkdir()
    write_tone(root / "audio/POD1.flac", 6.0).rename(root / "audio/POD1.opus")
    recordings = write(root / "r.jsonl.gz", recording("POD1"))
    path = write(root / "s.jsonl.gz", supervision("0", "POD1"), supervision("1", "POD1", start=3.5))
    return {"path": str(path), "audio": str(recordings)}


def make_voxpopuli(root: Path) -> Made:
    rows = [
        {
            "audio_id": row["id"],
            "language": 0,
            "audio": row["audio"],
            "raw_text": "",
            "normalized_text": row["text"],
            "gender": "female",
            "speaker_id": "s",
            "is_gold_transcript": True,
            "accent": "None",
        }
        for row in hub_rows(4)
    ]
    write_parquet(root / "en/train-00000-of-00001.parquet", rows)
    return {"path": str(root / "en/train-*.parquet")}


def make_tedlium(root: Path) -> Made:
    tedlium(root)
    return {"path": str(root / "stm"), "audio": str(root / "sph")}


def make_ami(root: Path) -> Made:
    return {"path": str(ami(root))}


def make_peoples_speech(root: Path) -> Made:
    return {"path": str(peoples_speech(root)), "source_split": "train.100", "revision": ""}


def make_podcasts(root: Path) -> Made:
    (root / "show").mkdir()
    write_tone(root / "show/episode 1.mp3", 3.0, sample_rate=44_100)
    write_tone(root / "trailer.ogg", 1.0)
    return {"path": str(root)}


def make_relabel(root: Path) -> Made:
    fields = {"reference": "x", "duration_seconds": 0.5, "speaker": "s", "licence": "cc0-1.0"}
    write_tar(root / "a-00000.tar", sample("a", 0.5, **fields) + sample("b", 0.5, **fields))
    return {"path": str(root / "a-*.tar")}


def made(root: Path, make: Callable[[Path], Made]) -> tuple[str, PipelineConfig]:
    """Make a small corpus; return the name of its configuration, and that, pointed there."""
    name = make.__name__.removeprefix("make_").replace("_", "-")
    config = load_config(CONFIGS / f"{name}.yaml")
    fields: dict = dict(make(root))
    if "revision" in fields:
        fields["revision"] = None
    corpora = [dataclasses.replace(config.corpora[0], **fields)]
    return name, dataclasses.replace(config, corpora=corpora)


def check_run(config: PipelineConfig) -> dict[str, SplitReport]:
    """Run, and find every planned utterance at one end in each corpus; return the numbers."""
    totals = run(config).totals
    report = json.loads((Path(config.output) / "report.json").read_text())
    splits = {s["corpus"]: SplitReport(**s) for s in report["splits"]}
    assert totals.planned == sum(s.planned for s in splits.values())
    for s in splits.values():
        assert s.planned == s.kept + sum(s.rejected.values()) + sum(s.failed.values()), s
    return splits


LAYOUTS = [
    (make_librispeech, 4),
    (make_common_voice, 3),
    (make_gigaspeech, 2),
    (make_voxpopuli, 4),
    (make_tedlium, 2),
    (make_ami, 3),
    (make_peoples_speech, 6),
    (make_podcasts, 2),
    (make_relabel, 2),
]


@pytest.mark.parametrize(("make", "count"), LAYOUTS)
def test_configuration_reads_its_corpus(tmp_path: Path, make: Callable[[Path], Made], count: int):
    name, config = made(tmp_path, make)
    plan = make_plan(config, "r")
    found = [entry for block in plan.blocks for entry in entries(block, config)]
    utterances = [entry for entry in found if isinstance(entry, Utterance)]
    assert plan.num_utterances == len(found)
    assert len(utterances) == count
    for utterance in utterances:
        seconds = utterance.duration_seconds
        audio = load_audio(
            utterance.path, utterance.start_seconds, seconds, channel=utterance.channel
        )
        assert audio.size > 1000
        assert (utterance.reference is None) == (name == "podcasts")


@pytest.mark.slow
def test_corpora_of_every_layout_are_labelled_in_one_run(tmp_path: Path, configure):
    corpora = []
    for make, _ in LAYOUTS:
        (tmp_path / make.__name__).mkdir()
        name, config = made(tmp_path / make.__name__, make)
        corpora.append(dataclasses.replace(config.corpora[0], name=name))
    config = configure(*corpora, blocks=BlocksConfig(minutes=1), max_failed_fraction=1.0)
    splits = check_run(config)
    for make, count in LAYOUTS:
        split = splits[make.__name__.removeprefix("make_").replace("_", "-")]
        assert split.kept + sum(split.rejected.values()) >= count
        assert not split.failed.get("read"), split
    assert splits["podcasts"].kept == 2
    assert {s.licence for s in splits.values()} >= {"cc0-1.0", "apache-2.0", "cc-by-nc-nd-3.0"}


def test_every_kind_of_corpus_has_a_configuration():
    used = {c.kind for path in CONFIGS.glob("*.yaml") for c in load_config(path).corpora}
    kinds = CorpusConfig.__annotations__["kind"].__args__
    assert used == set(kinds)


def real_speech(root: Path, name: str, kind: Any, limit: int | None) -> tuple[CorpusConfig, int]:
    """Return a corpus of real speech as a kind, and how many utterances it has."""
    lines = [json.loads(x) for x in (SPEECH / name / "manifest.jsonl").read_text().splitlines()]
    recorded = {line["audio_filepath"] for line in lines}
    fields: dict = {
        "name": f"{name}-{kind}",
        "licence": "cc0-1.0",
        "kind": kind,
        "language": name[:2],
    }
    expected = len(lines)
    match kind:
        case "manifest":
            fields["path"] = str(SPEECH / name / "manifest.jsonl")
        case "folder":
            fields |= {"path": str(SPEECH / name), "references": False}
            expected = len(recorded)
        case "webdataset":
            lines = lines[:limit]
            expected = len(lines)
            members = []
            for number, line in enumerate(lines):
                audio = SPEECH / name / line["audio_filepath"]
                members.append((f"{number:04d}{audio.suffix}", audio.read_bytes()))
                members.append((f"{number:04d}.json", json.dumps(line).encode()))
            fields["path"] = str(write_tar(root / f"{name}.tar", members))
    return CorpusConfig(**fields), expected


REAL = ["de_kerstin", "en_kathleen", "en_speechocean_train", "nl_nathalie"]
LABELLED = REAL if os.environ.get("LABEL_ALL_SPEECH") else ["nl_nathalie"]
"""Those that are also labelled; all of them take minutes."""
KINDS = ["manifest", "folder", "webdataset"]


@pytest.mark.skipif(not SPEECH.is_dir(), reason=ABSENT)
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("kind", KINDS)
def test_real_speech_is_accounted_for(tmp_path: Path, name: str, kind: str):
    corpus, expected = real_speech(tmp_path, name, kind, 40)
    config = dataclasses.replace(load_config(CONFIGS / "minimal.yaml"), corpora=[corpus])
    plan = make_plan(config, "r")
    found = [entry for block in plan.blocks for entry in entries(block, config)]
    assert len(found) == plan.num_utterances == expected
    assert all(isinstance(entry, Utterance) for entry in found)
    if kind == "manifest":
        lines = (SPEECH / name / "manifest.jsonl").read_text().splitlines()
        said = sum(json.loads(line)["duration"] for line in lines)
        assert plan.duration_seconds == pytest.approx(said, abs=1)
    for entry in found[:: max(len(found) // 5, 1)]:
        assert isinstance(entry, Utterance)
        assert load_audio(entry.path).size > 1000


@pytest.mark.slow
@pytest.mark.skipif(not SPEECH.is_dir(), reason=ABSENT)
def test_real_speech_runs_through_with_every_utterance_accounted_for(
    tmp_path: Path, configure, teacher_folder: Path
):
    made = [real_speech(tmp_path, name, kind, None) for name in LABELLED for kind in KINDS]
    config = configure(
        *(corpus for corpus, _ in made),
        teacher=TeacherConfig(
            model=str(teacher_folder), device="cpu", window="clip", canary=False, batch_size=16
        ),
        clips=ClipConfig(pack="before_label", pack_by="any"),
        filter=FilterConfig(max_wer=9.0, speaking_rate="off"),
        blocks=BlocksConfig(minutes=30),
    )
    splits = check_run(config)
    for corpus, expected in made:
        split = splits[corpus.name]
        assert (split.planned, split.failed) == (expected, {}), split
        assert split.kept, split
