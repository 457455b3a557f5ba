from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import corpora
from pipeline.audio import load_audio
from pipeline.clips import RULE_STAGE
from pipeline.corpora import Utterance
from pipeline.corpora.utterance import RULE_STAGE as READERS_RULE_STAGE
from pipeline.ledger import Failure
from tests.pipeline.corpora.material import check_positions, configured

TALK = """\
;; a comment
Talk_2010 1 Talk_2010 0.00 1.00 <o,f0,male> ignore_time_segment_in_scoring
Talk_2010 1 Talk_2010 1.00 2.50 <o,f0,male> there 's a <unk> word
Talk_2010 1 Talk_2010 2.50 2.00 <o,f0,male> backwards
Talk_2010 1 Talk_2010 2.50 inf <o,f0,male> without an end
Talk_2010 1 Talk_2010 1e306 1e307 <o,f0,male> in no recording
Talk_2010 9 Talk_2010 2.00 2.50 <o,f0,male> what channel
Talk_2010 1
Gone_2010 1 Gone 0 1 <o,f0,male> no such recording
"""


def tedlium(root: Path) -> Path:
    """`stm/` and `sph/` side by side, as TED-LIUM 3 is laid out."""
    (root / "stm").mkdir()
    (root / "sph").mkdir()
    (root / "stm/Talk_2010.stm").write_text(TALK)
    (root / "stm/Zalk_2011.stm").write_text("Zalk_2011 1 Zalk 0 1 <o,f0,female> last\n")
    for name in ("Talk_2010", "Zalk_2011"):
        soundfile.write(
            root / f"sph/{name}.sph", np.full(48_000, 0.25), 16_000, format="NIST", subtype="PCM_16"
        )
    return root


def test_tedlium_layout(tmp_path: Path):
    tedlium(tmp_path)
    config = configured("stm", tmp_path / "stm", audio=str(tmp_path / "sph"))
    ignored, good, reversed_, *endless, channel, short, gone, last = check_positions(config)
    assert isinstance(good, Utterance)
    assert good.reference == "there 's a <unk> word"
    assert (good.id, good.speaker) == ("Talk_2010-1-0001000-0002500", "Talk_2010")
    assert (good.start_seconds, good.duration_seconds, good.channel) == (1.0, 1.5, 0)
    assert load_audio(good.path, 1.0, 1.5, channel=good.channel).size == 24_000
    assert isinstance(ignored, Failure)
    assert (ignored.stage, ignored.error) == (RULE_STAGE, "ignored_segment")
    bad = (reversed_, *endless, channel, short, gone)
    messages = [e.message for e in bad if isinstance(e, Failure)]
    assert "the segment ends at 2 s but starts at 2.5 s" in messages[0]
    assert "the segment ends at inf s but starts at 2.5 s" in messages[1]
    assert "the segment starts at 1e+306 s" in messages[2]
    assert "channel '9'" in messages[3]
    assert "expected: recording channel" in messages[4]
    assert f"there is no recording 'Gone_2010' in {tmp_path}/sph" in messages[5]
    assert isinstance(last, Utterance)


def test_two_channel_telephone_calls(tmp_path: Path):
    left, right = np.full(16_000, 0.5), np.full(16_000, -0.25)
    soundfile.write(tmp_path / "sw02001.wav", np.stack([left, right], axis=1), 8_000)
    (tmp_path / "calls.stm").write_text(
        "sw02001 A sw02001-A 0.0 1.0 <O,Male> hi um yeah\nsw02001 B sw02001-B 0.0 1.0 hello\n"
    )
    a, b = check_positions(configured("stm", tmp_path / "calls.stm"))
    assert isinstance(a, Utterance)
    assert isinstance(b, Utterance)
    assert (a.channel, b.channel, b.reference) == (0, 1, "hello")
    assert a.id != b.id
    assert load_audio(a.path, 0.1, 0.5, channel=a.channel).mean() == pytest.approx(0.5, abs=0.01)
    assert load_audio(b.path, 0.1, 0.5, channel=b.channel).mean() == pytest.approx(-0.25, abs=0.01)


def test_missing_stm_files_are_said_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no STM file"):
        list(corpora.read(configured("stm", tmp_path)))


def test_readers_and_rules_reject_at_the_same_stage():
    assert READERS_RULE_STAGE == RULE_STAGE
