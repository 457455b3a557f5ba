import dataclasses
import json
from pathlib import Path

import pytest

from pipeline import corpora
from pipeline.clips import RULE_STAGE
from pipeline.config import BlocksConfig, ClipConfig, DecodingConfig, TeacherConfig
from pipeline.corpora import Utterance
from pipeline.filters import FilterConfig
from pipeline.ledger import Failure
from pipeline.plan import CorpusChangedError, Plan, entries, make_keys, make_plan
from pipeline.schema import from_json, to_json
from tests.pipeline.conftest import write_tone


def lines(*seconds: float):
    return [
        {"audio_filepath": f"{i}.wav", "text": "x", "duration": s} for i, s in enumerate(seconds)
    ]


def test_blocks_are_cut_by_audio_and_not_by_count(corpus, configure):
    config = configure(corpus(*lines(20, 20, 20, 50, 90, 5)), blocks=BlocksConfig(minutes=1))
    plan = make_plan(config, "r")
    assert [(b.id, b.start, b.stop, b.duration_seconds) for b in plan.blocks] == [
        ("mine-train-00000", 0, 3, 60),
        ("mine-train-00001", 3, 4, 50),
        ("mine-train-00002", 4, 5, 90),
        ("mine-train-00003", 5, 6, 5),
    ]
    assert (plan.num_utterances, plan.duration_seconds) == (6, 205)


def test_corpora_are_counted_with_their_licences(corpus, configure):
    train, test = corpus(*lines(5, 6)), corpus(*lines(7), split="test", licence="cc-by-4.0")
    plan = make_plan(configure(train, test), "r")
    found = [(c.split, c.licence, c.num_utterances, c.duration_seconds) for c in plan.corpora]
    assert found == [("train", "cc0-1.0", 2, 11), ("test", "cc-by-4.0", 1, 7)]


def test_plan_is_the_same_each_time_and_survives_json(corpus, configure):
    config = configure(corpus(*lines(3, 2, 3)))
    plan = make_plan(config, "r")
    assert make_plan(config, "r") == plan
    assert from_json(Plan, to_json(plan)) == plan


def test_unknown_lengths_are_measured(corpus, configure, tones):
    plan = make_plan(configure(corpus(*tones(2))), "r")
    assert plan.duration_seconds == 2.5


def test_unreadable_audio_is_planned_and_not_fatal(corpus, configure):
    plan = make_plan(configure(corpus({"audio_filepath": "no.wav", "text": "x"})), "r")
    assert (plan.num_utterances, plan.duration_seconds) == (1, 0)


def test_second_use_of_an_id_is_a_failure_of_the_plan_even_in_another_block(corpus, configure):
    repeated = [dict(line, id="same") for line in lines(50, 50)]
    config = configure(corpus(*repeated), blocks=BlocksConfig(minutes=1))
    first, second = make_plan(config, "r").blocks
    assert isinstance(entries(first, config)[0], Utterance)
    (duplicate,) = entries(second, config)
    assert isinstance(duplicate, Failure)
    assert (duplicate.id, duplicate.stage, duplicate.error) == ("same", "plan", "duplicate_id")


def test_bad_line_is_planned_so_that_it_is_accounted_for(corpus, configure):
    config = configure(corpus("{oops", *lines(1)))
    (block,) = make_plan(config, "r").blocks
    assert block.num_utterances == 2
    assert isinstance(entries(block, config)[0], Failure)


def test_plan_tells_what_is_wrong_with_a_corpus_before_it_is_labelled(
    corpus, configure, tones, caplog
):
    good = dict(tones(1)[0], id="a")
    gone = {"audio_filepath": "gone.wav", "text": "x"}
    config = configure(corpus(good, "{oops", {"text": "x"}, good, gone))
    plan = make_plan(config, "r")
    assert plan.corpora[0].problems == {"bad_line": 2, "duplicate_id": 1, "unreadable_audio": 1}
    bad, repeated, unreadable = [r.getMessage() for r in caplog.records]
    assert bad.startswith("corpus 'mine', split 'train': 2 × bad_line, first ")
    assert "line 2: no JSON object" in bad
    assert repeated.endswith("1 × duplicate_id, first 'a'")
    assert "gone.wav" in unreadable


def test_corpus_whose_entries_all_make_no_utterance_is_refused(corpus, configure):
    with pytest.raises(
        ValueError, match=r"has no utterances, only 2 entries that make none\. The first: .*line 1"
    ):
        make_plan(configure(corpus({"path": "a.wav"}, {"path": "b.wav"})), "r")


def test_good_corpus_is_planned_without_a_word(corpus, configure, tones, caplog):
    assert not make_plan(configure(corpus(*tones(2))), "r").corpora[0].problems
    assert not caplog.records


def test_empty_corpus_is_refused(corpus, configure):
    with pytest.raises(ValueError, match="'mine', split 'train', has no utterances"):
        make_plan(configure(corpus()), "r")


@pytest.mark.parametrize("changed", ["text", "size", "licence", "missing"])
def test_block_has_another_fingerprint_when_its_input_changed(
    corpus, configure, tones, tmp_path: Path, changed: str
):
    recorded = tones(2)
    before = make_plan(configure(corpus(*recorded)), "r").blocks
    fields = {}
    match changed:
        case "text":
            recorded[0]["text"] = "another"
        case "size":
            write_tone(tmp_path / "tone0.wav", 1.1)
        case "licence":
            fields["licence"] = "cc-by-4.0"
        case "missing":
            (tmp_path / "tone0.wav").unlink()
    after = make_plan(configure(corpus(*recorded, **fields)), "r").blocks
    assert before[0].fingerprint != after[0].fingerprint


def test_change_in_one_block_leaves_the_others_alone(corpus, configure):
    many = lines(50, 50, 50)
    minute = BlocksConfig(minutes=1)
    before = make_plan(configure(corpus(*many), blocks=minute), "r").blocks
    many[1]["text"] = "another"
    after = make_plan(configure(corpus(*many), blocks=minute), "r").blocks
    same = [a.fingerprint == b.fingerprint for a, b in zip(before, after, strict=True)]
    assert same == [True, False, True]


def test_corpus_may_move_to_another_folder(corpus, configure, tones, tmp_path: Path):
    config = corpus(*tones(1))
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("train.jsonl", "tone0.wav"):
        (moved / name).write_bytes((tmp_path / name).read_bytes())
    there = dataclasses.replace(config, path=str(moved / "train.jsonl"))
    assert make_plan(configure(config), "r").blocks == make_plan(configure(there), "r").blocks


def test_corpus_that_changes_under_a_run_is_noticed(corpus, configure):
    config = configure(corpus(*lines(1)))
    (block,) = make_plan(config, "r").blocks
    Path(config.corpora[0].path).write_text(json.dumps(lines(2)[0]), encoding="utf-8")
    with pytest.raises(CorpusChangedError, match="changed while the run was at work"):
        entries(block, config)


@pytest.mark.parametrize(
    ("fields", "labels_change", "shards_change"),
    [
        ({"filter": FilterConfig(max_wer=0.2)}, False, True),
        ({"decoding": DecodingConfig(num_beams=5)}, True, True),
        ({"clips": ClipConfig(max_seconds=20)}, True, True),
        ({"teacher": TeacherConfig(model="other/model")}, True, True),
        ({"max_failed_fraction": 0.5}, False, False),
        ({"blocks": BlocksConfig(minutes=3)}, False, False),
    ],
)
def test_what_changes_the_keys(corpus, configure, fields, labels_change, shards_change):
    before = make_keys(configure(corpus(*lines(1))), "r")
    after = make_keys(configure(corpus(*lines(1)), **fields), "r")
    assert (before.label_key != after.label_key) == labels_change
    assert (before.shard_key != after.shard_key) == shards_change


def test_speed_settings_change_no_key_and_new_weights_do(corpus, configure):
    config = configure(corpus(*lines(1)))
    faster = dataclasses.replace(config.teacher, batch_size=64, device="cuda", num_threads=8)
    assert make_keys(dataclasses.replace(config, teacher=faster), "r") == make_keys(config, "r")
    assert make_keys(config, "other").label_key != make_keys(config, "r").label_key


def test_licences_that_are_not_allowed_are_rejected_before_they_are_labelled(corpus, configure):
    many = lines(5, 5, 5)
    many[1]["licence"] = "cc-by-nc-4.0"
    config = configure(corpus(*many), licences=["CC0-1.0", "cc-by-4.0"])
    plan = make_plan(config, "r")
    assert plan.corpora[0].licence == "cc-by-nc-4.0, cc0-1.0"
    found = [entry for block in plan.blocks for entry in entries(block, config)]
    assert [type(entry).__name__ for entry in found] == ["Utterance", "Failure", "Utterance"]
    assert isinstance(found[1], Failure)
    assert (found[1].stage, found[1].error) == (RULE_STAGE, "licence")
    assert "cc-by-nc-4.0; `licences` allows CC0-1.0, cc-by-4.0" in found[1].message


def test_another_allow_list_changes_only_the_blocks_that_it_concerns(corpus, configure):
    many = lines(50, 50, 50)
    many[1]["licence"] = "cc-by-nc-4.0"
    minute = BlocksConfig(minutes=1)
    before = make_plan(configure(corpus(*many), blocks=minute), "r").blocks
    after = make_plan(configure(corpus(*many), blocks=minute, licences=["cc0-1.0"]), "r").blocks
    same = [a.fingerprint == b.fingerprint for a, b in zip(before, after, strict=True)]
    assert same == [True, False, True]


def test_blocks_are_found_again_by_their_position(corpus, configure):
    config = configure(corpus(*lines(*[20] * 9)))
    config = dataclasses.replace(config, blocks=BlocksConfig(minutes=1))
    plan = make_plan(config, "r")
    whole = list(corpora.read(config.corpora[0]))
    again = [entry for block in plan.blocks for entry in entries(block, config)]
    assert (len(plan.blocks), again) == (3, whole)


def test_number_of_blocks_of_each_corpus_is_told(corpus, configure):
    config = configure(corpus(*lines(50, 50)), blocks=BlocksConfig(minutes=1))
    assert make_plan(config, "r").corpora[0].num_blocks == 2


def test_order_of_probing_does_not_change_the_plan(corpus, configure, tones):
    config = configure(corpus(*tones(20)), blocks=BlocksConfig(minutes=0.5))
    assert make_plan(config, "r") == make_plan(config, "r")
