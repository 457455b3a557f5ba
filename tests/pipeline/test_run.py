import dataclasses
import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline import block_stage, blocks
from pipeline import run as run_module
from pipeline.config import (
    BlocksConfig,
    CorpusConfig,
    DecodingConfig,
    PipelineConfig,
    TeacherConfig,
)
from pipeline.filters import FilterConfig
from pipeline.parts import Part
from pipeline.run import run, run_part
from pipeline.schema import read_index
from pipeline.shards import read_shard
from pipeline.totals import TooManyFailuresError
from pipeline.workers import RunError
from tests.pipeline.conftest import SENTENCE, write_teacher, write_tone


def no_teacher(*args: Any) -> None:
    pytest.fail("the teacher was loaded")


def in_the_launcher(*args: Any) -> None:
    raise RuntimeError("the launcher did the work of its workers")


def files_of(config: PipelineConfig, folder: str = "") -> dict[str, tuple[str, int]]:
    """Hash and time of every file below the output folder."""
    root = Path(config.output)
    return {
        str(p.relative_to(root)): (
            hashlib.sha256(p.read_bytes()).hexdigest(),
            p.stat().st_mtime_ns,
        )
        for p in sorted((root / folder).rglob("*"))
        if p.is_file()
    }


def hashes_of(config: PipelineConfig) -> dict[str, str]:
    return {name: digest for name, (digest, _) in files_of(config, "shards").items()}


def test_run_writes_the_files_of_the_contract(corpus, configure, tones):
    config = configure(corpus(*tones(4)))
    outcome = run(config)
    root = Path(config.output)
    index = read_index(root)
    assert (outcome.blocks, outcome.labelled, outcome.rebuilt) == (3, 3, 3)
    assert outcome.totals == index.totals
    assert [s.name for s in index.shards] == [f"mine-train-{i:05d}.tar" for i in range(3)]
    for name in ("plan.json", "config.yaml", "report.json", "report.html"):
        assert (root / name).is_file()
    assert len(list(root.glob(f"ledger/{index.label_key}/*.parquet"))) == 3
    assert len(list(root.glob(f"failures/{index.label_key}/*.jsonl"))) == 3
    assert not list(root.rglob("*.tmp"))
    samples = [s for name in index.shards for s, _ in read_shard(root / "shards" / name.name)]
    assert {s.id for s in samples} == {f"tone{i}" for i in range(4)}
    assert {s.pseudo_label for s in samples} == {SENTENCE}
    entry = index.shards[0]
    assert entry.sha256 == hashes_of(config)[f"shards/{entry.name}"]


def test_every_planned_utterance_ends_as_exactly_one_thing(corpus, configure, tones, tmp_path):
    write_tone(tmp_path / "long.wav", 31)
    (tmp_path / "broken.wav").write_text("this is no audio")
    train = corpus(
        *tones(3),
        {"audio_filepath": "tone0.wav", "text": "something else", "id": "wrong"},
        {"audio_filepath": "tone0.wav", "text": "", "id": "silent"},
        {"audio_filepath": "tone0.wav", "text": "x"},
        {"audio_filepath": "long.wav", "text": "x"},
        {"audio_filepath": "broken.wav", "text": "x"},
        "{oops",
    )
    test = corpus(*tones(2, text="something else"), split="test")
    totals = run(configure(train, test, max_failed_fraction=0.5)).totals
    assert totals.planned == 11
    assert totals.kept == 5
    assert totals.rejected == {"empty_reference": 1, "too_long": 1, "wer": 1}
    assert totals.failed == {"plan": 2, "read": 1}


def test_a_repeated_id_is_counted_though_a_rule_turned_its_first_use_away(corpus, configure, tones):
    first, second, third, fourth = tones(4)
    lines = [
        dict(first, id="allowed first"),
        dict(second, id="allowed first", licence="cc-by-nc-4.0"),
        dict(third, id="never allowed", licence="cc-by-nc-4.0"),
        dict(fourth, id="never allowed", licence="cc-by-nc-4.0"),
    ]
    config = configure(corpus(*lines), licences=["cc0-1.0"], max_failed_fraction=0.5)
    totals = run(config).totals
    assert (totals.planned, totals.kept) == (4, 1)
    assert (totals.rejected, totals.failed) == ({"licence": 1}, {"plan": 2})


def test_a_line_to_ignore_that_stands_twice_is_counted_twice(configure, tones, tmp_path):
    tones(1)
    ignored = "tone0 1 tone0 0.00 0.50 <o> ignore_time_segment_in_scoring\n"
    (tmp_path / "tone0.stm").write_text(f"{ignored}{ignored}tone0 1 tone0 0.50 1.00 <o> x\n")
    stm = CorpusConfig(name="mine", kind="stm", licence="cc0-1.0", path=str(tmp_path / "tone0.stm"))
    totals = run(configure(stm, max_failed_fraction=0.5)).totals
    assert totals.planned == 3
    assert totals.rejected == {"ignored_segment": 1, "wer": 1}
    assert totals.failed == {"plan": 1}


def test_second_run_does_nothing(corpus, configure, tones, monkeypatch):
    config = configure(corpus(*tones(3)))
    first = run(config)
    before = files_of(config)
    monkeypatch.setattr(blocks, "_teacher", no_teacher)
    second = run(config)
    assert second.nothing_to_do
    assert second.totals == first.totals
    unchanged = {"plan.json", "config.yaml"}  # written again with the same content
    after = files_of(config)
    assert {n: d for n, (d, _) in after.items()} == {n: d for n, (d, _) in before.items()}
    assert {n for n in after if after[n] != before[n]} <= unchanged


def test_changed_threshold_rebuilds_shards_without_the_teacher(
    corpus, configure, tones, monkeypatch
):
    config = configure(corpus(*tones(3, text="the new house")))
    assert run(config).totals.kept == 0
    ledger = files_of(config, "ledger")
    monkeypatch.setattr(blocks, "_teacher", no_teacher)
    looser = dataclasses.replace(config, filter=FilterConfig(max_wer=0.4))
    outcome = run(looser)
    assert (outcome.labelled, outcome.rebuilt, outcome.totals.kept) == (0, 2, 3)
    assert files_of(config, "ledger") == ledger
    assert read_index(config.output).filter["max_wer"] == 0.4


def test_going_back_to_a_threshold_gives_the_same_bytes(corpus, configure, tones):
    config = configure(corpus(*tones(3)))
    run(config)
    first = hashes_of(config)
    run(dataclasses.replace(config, filter=FilterConfig(splits=())))
    run(config)
    assert hashes_of(config) == first


def test_changed_teacher_labels_again_and_the_old_labels_stay(corpus, configure, tones, tmp_path):
    config = configure(corpus(*tones(3)))
    run(config)
    before = files_of(config, "ledger")
    folder = write_teacher(tmp_path / "other", "a box of ropes")
    teacher = TeacherConfig(model=str(folder), device="cpu", canary=False)
    other = dataclasses.replace(config, teacher=teacher)
    outcome = run(other)
    assert outcome.labelled == outcome.blocks == 2
    assert outcome.totals.rejected == {"wer": 3}
    assert before.items() <= files_of(config, "ledger").items()
    back = run(config)
    assert (back.labelled, back.rebuilt, back.totals.kept) == (0, 2, 3)


def test_killed_run_is_finished_by_running_again(corpus, configure, tones, monkeypatch):
    config = configure(corpus(*tones(4)))
    whole = dataclasses.replace(config, output=f"{config.output}-whole")
    run(whole)

    label, done = blocks.label_block, []

    def killed(*arguments: Any) -> None:
        if len(done) == 1:
            raise RuntimeError("killed")
        done.append(label(*arguments))

    monkeypatch.setattr(blocks, "label_block", killed)
    with pytest.raises(RunError, match="killed"):
        run(config)
    assert not (Path(config.output) / "index.json").exists()
    monkeypatch.undo()
    outcome = run(config)
    assert (outcome.blocks, outcome.labelled, outcome.rebuilt) == (3, 2, 2)
    assert hashes_of(config) == hashes_of(whole)


def test_run_killed_before_its_index_only_writes_that(corpus, configure, tones, monkeypatch):
    config = configure(corpus(*tones(2)))
    run(config)
    (Path(config.output) / "index.json").unlink()
    monkeypatch.setattr(blocks, "_teacher", no_teacher)
    run(config)
    assert read_index(config.output).totals.kept == 2


def test_a_damaged_index_is_written_again(corpus, configure, tones, monkeypatch, caplog):
    config = configure(corpus(*tones(2)))
    run(config)
    index = Path(config.output) / "index.json"
    whole = index.read_bytes()
    index.write_bytes(whole[:100])
    monkeypatch.setattr(blocks, "_teacher", no_teacher)
    outcome = run(config)
    assert (outcome.labelled, outcome.rebuilt, outcome.indexed) == (0, 0, True)
    assert f"index and report are written again: {index} is damaged" in caplog.text
    assert read_index(config.output).totals.kept == 2
    assert run(config).nothing_to_do


def test_new_line_in_a_manifest_only_costs_its_block(corpus, configure, tones):
    lines = tones(4)
    config = configure(corpus(*lines))
    run(config)
    corpus(*lines, dict(lines[0], id="new"))
    assert run(config).labelled == 1


def test_shards_of_blocks_that_are_no_longer_planned_are_removed(corpus, configure, tones):
    config = configure(corpus(*tones(4)))
    run(config)
    run(dataclasses.replace(config, blocks=BlocksConfig(minutes=60)))
    assert set(hashes_of(config)) == {
        "shards/mine-train-00000.tar",
        "shards/mine-train-00000.json",
    }


def test_spent_poison_budget_stops_the_run_early_and_keeps_what_is_labelled(
    corpus, configure, tones, tmp_path
):
    bad = []
    for i in range(20):
        (tmp_path / f"bad{i}.wav").write_text("this is no audio")
        bad.append({"audio_filepath": f"bad{i}.wav", "text": "x", "duration": 3})
    config = configure(corpus(*tones(2), *bad), max_failed_fraction=0.1)
    with pytest.raises(
        TooManyFailuresError, match=r"3 of 22 planned utterances failed \(read 3\).*Mend"
    ):
        run(config)
    root = Path(config.output)
    assert not (root / "index.json").exists()
    assert len(list(root.glob("shards/*.json"))) < 22
    with pytest.raises(TooManyFailuresError, match="planned utterances failed"):
        run(config)
    outcome = run(dataclasses.replace(config, max_failed_fraction=1.0))
    assert outcome.labelled < outcome.blocks
    assert outcome.totals.failed == {"read": 20}


def test_spent_poison_budget_stops_the_pass_that_only_labels(corpus, configure, tones, tmp_path):
    bad = []
    for i in range(20):
        (tmp_path / f"bad{i}.wav").write_text("this is no audio")
        bad.append({"audio_filepath": f"bad{i}.wav", "text": "x", "duration": 3})
    config = configure(
        corpus(*tones(2), *bad),
        max_failed_fraction=0.1,
        filter=FilterConfig(drop_duplicates=True),
    )
    left = []
    for _ in range(2):
        with pytest.raises(TooManyFailuresError, match=r"3 of 22 .* failed \(read 3\).*Mend"):
            run(config)
        left.append(21 - len(list(Path(config.output).glob("ledger/*/*.parquet"))))
    assert left[0] == left[1] > 0
    enough = dataclasses.replace(config, max_failed_fraction=1.0)
    work = run_part(enough, Part(number=0, of=1))
    assert (work.blocks, work.labelled, work.rebuilt) == (21, left[0], 0)
    outcome = run(enough)
    assert (outcome.labelled, outcome.rebuilt, outcome.totals.failed) == (0, 21, {"read": 20})


def test_mended_corpus_is_finished_after_the_budget_was_spent(corpus, configure, tmp_path):
    lines = []
    for i in range(4):
        (tmp_path / f"{i}.wav").write_text("this is no audio")
        lines.append({"audio_filepath": f"{i}.wav", "text": SENTENCE, "duration": 3})
    config = configure(corpus(*lines), max_failed_fraction=0.25)
    with pytest.raises(TooManyFailuresError):
        run(config)
    for i in range(3):
        write_tone(tmp_path / f"{i}.wav", 3)
    totals = run(config).totals
    assert (totals.kept, totals.failed) == (3, {"read": 1})


def test_missing_teacher_is_said_before_anything_is_done(corpus, configure, tones, tmp_path):
    config = configure(corpus(*tones(1)), teacher=TeacherConfig(model=str(tmp_path / "no" / "t")))
    with pytest.raises(FileNotFoundError, match=r"teacher\.model"):
        run(config)
    assert not Path(config.output).exists()


def test_a_language_that_the_teacher_lacks_is_refused_where_only_a_line_names_it(
    corpus, configure, tones
):
    first, second = tones(2)
    lines = [dict(first, lang="en"), dict(second, lang="tlh", licence="cc-by-nc-4.0")]
    config = configure(corpus(*lines, language="tlh"))
    with pytest.raises(ValueError, match="the teacher does not know language 'tlh'; it knows"):
        run(config)
    assert not (Path(config.output) / "plan.json").exists()
    # Neither a corpus' own language nor a line that is not labelled asks anything of a teacher.
    totals = run(dataclasses.replace(config, licences=["cc0-1.0"])).totals
    assert (totals.kept, totals.rejected) == (1, {"licence": 1})


def test_two_workers_write_the_same_bytes_as_one(corpus, configure, tones):
    config = configure(corpus(*tones(5), {"audio_filepath": "no.wav", "text": "x"}))
    config = dataclasses.replace(config, max_failed_fraction=1.0)
    run(config)
    two = dataclasses.replace(config, output=f"{config.output}-two", beam={"direct_num_workers": 2})
    run(two)
    assert len(hashes_of(config)) > 4
    assert hashes_of(two) == hashes_of(config)


@pytest.mark.slow
def test_worker_that_dies_does_not_hang_the_run(corpus, configure, tones):
    config = configure(corpus(*tones(4)), beam={"direct_num_workers": 2})

    def kill_first_worker() -> None:
        while True:
            for child in psutil.Process().children(recursive=True):
                if "pipeline.worker_process" in " ".join(child.cmdline()):
                    child.kill()
                    return
            time.sleep(0.1)

    threading.Thread(target=kill_first_worker, daemon=True).start()
    with pytest.raises(RunError, match="a worker process died"):
        run(config)
    time.sleep(1)
    left = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    assert not [p for p in left if "pipeline.worker_process" in " ".join(p.cmdline())]
    assert run(dataclasses.replace(config, beam={"direct_num_workers": 1})).totals.kept == 4


def test_the_same_speech_in_another_block_is_kept_once(corpus, configure, tones):
    first, *others = tones(3)
    again = [dict(first, id="again"), dict(others[0], id="again too")]
    config = configure(corpus(first, *others, *again), filter=FilterConfig(drop_duplicates=True))
    outcome = run(config)
    assert outcome.blocks > 1
    assert outcome.totals
    assert (outcome.totals.kept, outcome.totals.rejected) == (3, {"duplicate": 2})
    assert run(config).nothing_to_do


def test_the_second_pass_has_worker_processes_and_resources_too(
    corpus, configure, tones, monkeypatch
):
    config = configure(
        corpus(*tones(3)),
        filter=FilterConfig(drop_duplicates=True),
        beam={"direct_num_workers": 2, "resource_hints": ["min_ram=1GB"]},
    )
    asked, build = [], run_module.build_graph

    def build_graph(graph: Any, blocks: Any, process: Any, hints: dict[str, str]) -> None:
        asked.append(hints)
        build(graph, blocks, process, hints)

    monkeypatch.setattr(run_module, "build_graph", build_graph)
    monkeypatch.setattr(block_stage, "process_block", in_the_launcher)  # not in other processes
    totals = run(config).totals
    assert totals.kept == 3
    assert asked == [{"min_ram": "1GB"}] * 2


def test_speech_that_overlaps_an_evaluation_set_is_rejected(corpus, configure, tones, tmp_path):
    (tmp_path / "eval.txt").write_text("Once upon a time the old house stood on a hill.\n")
    said = "we know that the old house stood on a hill"
    write_teacher(tmp_path / "says", said)
    config = configure(
        corpus(*tones(2, text=said)),
        teacher=TeacherConfig(model=str(tmp_path / "says"), device="cpu", canary=False),
        decoding=DecodingConfig(max_new_tokens=40),
        filter=FilterConfig(
            evaluation_sets=(str(tmp_path / "eval.txt"),),
            contamination_words=5,
            speaking_rate="off",
        ),
    )
    totals = run(config).totals
    assert totals
    assert totals.rejected == {"contaminated": 2}
    (tmp_path / "eval.txt").write_text("Something else entirely, of many other words.\n")
    outcome = run(config)
    assert outcome.labelled == 0
    assert outcome.totals
    assert outcome.totals.kept == 2
