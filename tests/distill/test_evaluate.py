"""Models side by side: rates that other tools confirm, comparisons, and every optional part."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from whisper_normalizer.english import EnglishTextNormalizer

from distill.__main__ import main
from distill.config import InitConfig
from distill.evaluate import evaluate
from distill.evaluate_config import EvaluateConfig, RobustnessConfig
from distill.evaluate_data import EvaluationClip, long_recordings, read_clips
from distill.evaluate_files import size_bytes
from distill.evaluate_scores import break_down, compare, rates, score_all
from distill.evaluate_table import comparison_table
from distill.quantization import save
from distill.quantization.fake import quantise
from distill.quantization.presets import rules_of
from distill.student import load_model, load_processor, num_parameters
from distill.study_judging import count_errors
from distill.train import init
from distill.transcribe_config import LongformConfig
from pipeline.schema import SAMPLE_RATE
from tests.distill.material import make_audio, make_sample, write_dataset

Configure = Callable[..., EvaluateConfig]


@pytest.fixture(scope="module")
def student_folder(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("student")
    return init(InitConfig(teacher=str(teacher_folder), output=str(output), decoder_layers=1))


@pytest.fixture
def configure(
    dataset: Path, student_folder: Path, teacher_folder: Path, tmp_path: Path
) -> Configure:
    def make(**fields: Any) -> EvaluateConfig:
        config = EvaluateConfig(
            models=[str(teacher_folder), str(student_folder)],
            data=[str(dataset)],
            output=str(tmp_path / "new" / "evaluation"),
            batch_size=4,
            bootstrap_samples=50,
            max_new_tokens=8,
            device="cpu",
        )
        return dataclasses.replace(config, **fields)

    return make


def heard(config: EvaluateConfig, number: int) -> list[dict[str, Any]]:
    path = Path(config.output) / f"heard-{number}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rates_are_what_jiwer_and_the_normaliser_give(configure: Configure, teacher_folder: Path):
    config = configure()
    results = evaluate(config)
    written = json.loads((Path(config.output) / "results.json").read_text())
    assert written == dataclasses.asdict(results)
    assert (results.split, results.num_clips, results.audio_seconds) == ("test", 6, 16.4)
    normalize = EnglishTextNormalizer()
    for number, model in enumerate(results.models):
        lines = heard(config, number)
        references = [normalize(line["reference"]) for line in lines]
        texts = [normalize(line["hypothesis"]) for line in lines]
        expected = jiwer.process_words(references, texts)
        rates = model.rates
        assert rates.wer == pytest.approx(expected.wer, abs=1e-12)
        assert rates.wer_low <= rates.wer <= rates.wer_high
        assert rates.cer == pytest.approx(jiwer.cer(references, texts))
        counts = (rates.substitutions, rates.deletions, rates.insertions)
        assert counts == (expected.substitutions, expected.deletions, expected.insertions)
        assert rates.orthographic_wer == pytest.approx(
            jiwer.wer([ln["reference"] for ln in lines], [ln["hypothesis"] for ln in lines])
        )
    teacher, student = results.models
    assert teacher.parameters == num_parameters(load_model(str(teacher_folder)))
    assert teacher.comparison is None
    assert student.comparison is not None
    assert student.comparison.wer_difference == pytest.approx(student.rates.wer - teacher.rates.wer)
    assert student.relative_speed == pytest.approx(
        teacher.decode_seconds / student.decode_seconds, rel=0.02
    )
    assert set(student.by_language) == {"en"}
    spent = results.spent
    assert spent.models == pytest.approx(teacher.decode_seconds + student.decode_seconds, abs=1e-3)
    own = spent.features + spent.reading + spent.scoring
    assert results.overhead == pytest.approx(own / spent.models, abs=1e-4) != 0


def test_the_device_on_record_is_the_one_that_was_used_where_any_was_allowed(configure: Configure):
    results = evaluate(configure(device="auto", max_clips=1))
    assert results.device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_report_is_one_file_that_loads_nothing(configure: Configure):
    config = configure()
    evaluate(config)
    page = (Path(config.output) / "report.html").read_text()
    assert page.count("<tr>") >= 6
    for forbidden in ("http://", "https://", "<script", "src="):
        assert forbidden not in page


def test_every_part_gives_rows_for_every_model(configure: Configure):
    config = configure(
        modes=["short", "sequential", "chunked", "speculative"],
        max_clips=3,
        latency_batches=[2],
        robustness=RobustnessConfig(noises=["white", "pub"], snrs=[10.0, 0.0], max_clips=2),
        non_speech=True,
        chunk_lengths=[10.0],
        prompt_lengths=[0, 20],
        timestamps=True,
        edges=True,
    )
    config = dataclasses.replace(
        config, longform=dataclasses.replace(config.longform, temperatures=[0.0])
    )
    parts = evaluate(config).parts
    expected = {
        "latency": 2, "sequential": 2, "chunked": 2, "speculative": 3, "robustness": 8,
        "non_speech": 8, "chunk_lengths": 2, "prompt_lengths": 4, "timestamps": 2, "edges": 10,
    }  # fmt: skip
    assert {name: len(rows) for name, rows in parts.items()} == expected
    for row in parts["speculative"]:
        assert row["identical"] == 1.0
        assert row["shared_encoder"]
    by_prompt = {
        (row["model"], row["prompt_tokens"]): row["wer"] for row in parts["prompt_lengths"]
    }
    results = json.loads((Path(config.output) / "results.json").read_text())
    for model in results["models"]:  # no prompt is plain short-form
        assert by_prompt[model["model"], 0] == pytest.approx(model["rates"]["wer"], abs=1e-5)
    page = (Path(config.output) / "report.html").read_text()
    for title in ("In noise", "Edge lengths", "Chunk length", "Sounds without speech"):
        assert title in page


def test_what_each_model_makes_up_is_told_by_recording(configure: Configure):
    config = configure(modes=["short", "sequential", "chunked"], max_new_tokens=40)
    config = dataclasses.replace(
        config, longform=dataclasses.replace(config.longform, temperatures=[0.0])
    )
    results = evaluate(config)
    for number, model in enumerate(results.models):
        for suffix, loops, insertions in (
            ("", model.rates.loops.repeated_five_grams, model.rates.insertions),
            ("-sequential", results.parts["sequential"][number]["repeated_five_grams"], None),
            ("-chunked", results.parts["chunked"][number]["repeated_five_grams"], None),
        ):
            path = Path(config.output) / f"heard-{number}{suffix}.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            assert sum(line["repeated_five_grams"] for line in lines) == loops
            assert insertions in (None, sum(line["insertions"] for line in lines))
            assert {"id", "reference", "hypothesis"} < set(lines[0])
    longest = max(line["longest_loop"] for line in heard(config, 0))
    assert longest == results.models[0].rates.loops.longest_loop


def test_results_of_other_settings_are_not_written_over(configure: Configure):
    config = configure(max_clips=1)
    evaluate(config)
    path = Path(config.output) / "results.json"
    first = path.read_text()
    with pytest.raises(
        ValueError,
        match=r"results.json exists already.*: max_clips \(was 1, now 2\); .*--overwrite",
    ):
        evaluate(dataclasses.replace(config, max_clips=2))
    assert path.read_text() == first
    assert evaluate(config).num_clips == 1  # the same again may be
    assert evaluate(dataclasses.replace(config, max_clips=2, overwrite=True)).num_clips == 2


def test_a_clip_that_cannot_be_read_stops_no_other_and_is_named_at_the_end(
    teacher_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    soundfile.write(tmp_path / "a.wav", make_audio(1.0), SAMPLE_RATE)
    (tmp_path / "b.wav").write_bytes(b"")
    lines = [
        {"id": name, "audio_filepath": f"{name}.wav", "text": "one", "duration": seconds}
        for name, seconds in (("a", 1.0), ("b", 1.0), ("missing", 1.0), ("long", 40.0))
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    output = tmp_path / "out"
    arguments = ["--models", str(teacher_folder), "--data", str(tmp_path / "m.jsonl")]
    options = ["--device=cpu", "--max_new_tokens=4", "--modes=[short,chunked]"]
    assert main(["evaluate", *arguments, *options, f"--output={output}"]) == 1
    printed = capsys.readouterr()
    assert "3 clips could not be read" in printed.err
    assert f"| {teacher_folder} |" in printed.out
    results = json.loads((output / "results.json").read_text())
    assert (results["num_clips"], set(results["unreadable"])) == (1, {"b", "missing", "long"})
    assert "missing.wav" in (output / "report.html").read_text()


def test_quantised_and_converted_models_stand_beside_plain_ones(
    configure: Configure,
    teacher_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    converters = pytest.importorskip("ctranslate2.converters")
    packed, converted = tmp_path / "packed", tmp_path / "converted"
    model = load_model(str(teacher_folder))
    save(model, quantise(model, rules_of("w8")), packed)
    load_processor(str(teacher_folder)).save_pretrained(packed)
    converters.TransformersConverter(
        str(teacher_folder), copy_files=["tokenizer.json", "preprocessor_config.json"]
    ).convert(str(converted))
    models = [str(teacher_folder), str(packed), str(converted)]
    config = configure(
        models=models, modes=["short", "chunked"], max_clips=2, latency_batches=[1],
        prompt_lengths=[0, 223], non_speech=True,
    )  # fmt: skip
    results = evaluate(config)
    parts = {name: {row["model"] for row in rows} for name, rows in results.parts.items()}
    assert parts == dict.fromkeys(("latency", "chunked", "non_speech", "prompt_lengths"), {*models})
    assert "NaN" not in (Path(config.output) / "results.json").read_text()
    plain, quantised, other = results.models
    assert (plain.size_bytes or 0) > (quantised.size_bytes or 0)
    assert [m.number_format for m in results.models] == ["float32", "int8, float16", ""]
    assert other.parameters is None
    assert other.rates.wer == plain.rates.wer

    audio = tmp_path / "a.wav"
    soundfile.write(audio, make_audio(2.0), SAMPLE_RATE)
    options = ["--device=cpu", "--max_new_tokens=6", "--language=en", str(audio)]
    texts = []
    for name in models:
        assert main(["transcribe", f"--model={name}", *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[2] == texts[0]


def test_the_size_of_a_model_is_of_its_weights_and_of_nothing_beside_them(tmp_path: Path):
    assert size_bytes("openai/whisper-tiny") is None
    assert size_bytes(str(tmp_path)) == 0
    for name in ("training_args.bin", "average.safetensors", "joint.safetensors"):
        (tmp_path / name).write_bytes(b"123")
    (tmp_path / "pytorch_model.bin").write_bytes(b"1" * 70)
    assert size_bytes(str(tmp_path)) == 70
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (tmp_path / name).write_bytes(b"1" * 20)
    assert size_bytes(str(tmp_path)) == 40
    (tmp_path / "quantized.safetensors").write_bytes(b"1" * 10)
    assert size_bytes(str(tmp_path)) == 10


def test_what_cannot_be_done_is_refused_before_anything_is_heard(configure: Configure):
    config = configure(robustness=RobustnessConfig(noises=["rain"]))
    with pytest.raises(ValueError, match="neither white, pub, nor a folder"):
        evaluate(config)
    assert not list(Path(config.output).glob("heard-*"))


def test_a_manifest_and_the_config_of_a_run_are_data_too(
    configure: Configure, dataset: Path, tmp_path: Path
):
    soundfile.write(tmp_path / "a.wav", make_audio(2.0), SAMPLE_RATE)
    lines = [
        {"audio_filepath": "a.wav", "text": "one", "offset": 0.5, "duration": 1.0, "speaker": "x"},
        {"audio_filepath": "a.wav", "text": "two", "lang": "de"},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    clips = read_clips(configure(data=[str(manifest)]))
    assert [(c.language, c.reference, c.duration_seconds) for c in clips] == [
        ("de", "two", 2.0),
        ("en", "one", 1.0),
    ]
    assert np.array_equal(clips[1].audio(), clips[0].audio()[8000:24000])
    run = tmp_path / "run.yaml"
    run.write_text(f"output: {dataset}\n")
    assert len(read_clips(configure(data=[str(run)]))) == 6


def test_what_a_manifest_leaves_null_is_taken_as_absent(configure: Configure, tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", make_audio(2.0), SAMPLE_RATE)
    nothing = dict.fromkeys(("offset", "duration", "lang", "speaker", "id"))
    lines = [
        {"audio_filepath": "a.wav", "text": "one\u2028two"} | nothing,
        {"audio_filepath": "a.wav", "text": None},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(json.dumps(ln, ensure_ascii=False) for ln in lines))
    (clip,) = read_clips(configure(data=[str(manifest)]))
    assert (clip.id, clip.language, clip.speaker) == ("a-1", "en", "")
    assert (clip.start_seconds, clip.duration_seconds) == (0.0, 2.0)
    assert clip.reference.split() == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", b'{"audio_filepath": "a.wav", "text": 5}', "line 1: .*must be strings"),
        ("m.jsonl", b'{"audio_filepath": "a.wav", "text": "a", "lang": "klingon"}', "line 1: "),
        ("m.jsonl", b'{"audio_filepath": "a.wav", "text": "a", "offset": "x"}', "line 1: "),
        ("m.jsonl", b'\n{"audio_filepath": "a.wav", "text": "\xff"}', "line 2: no NeMo"),
        ("run.yaml", b"output: [", "run.yaml is no YAML"),
        ("run.yaml", b"output: \xff", "run.yaml is no YAML"),
        ("run.yaml", b"output: null", "run.yaml has no `output`"),
    ],
)
def test_a_damaged_manifest_or_config_is_named(
    configure: Configure, tmp_path: Path, name: str, content: bytes, message: str
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_clips(configure(data=[str(tmp_path / name)]))


def test_a_config_that_has_not_been_run_says_how_to_run_it(configure: Configure, tmp_path: Path):
    config = tmp_path / "test-set.yaml"
    config.write_text(f"output: {tmp_path}/nowhere\n")
    with pytest.raises(FileNotFoundError, match=f"`whisper-pipeline run --config {config}`"):
        read_clips(configure(data=[str(config)]))


def test_clips_of_a_speaker_are_joined_in_order_up_to_a_length():
    def clip(number: int, speaker: str, seconds: float) -> EvaluationClip:
        return EvaluationClip(
            id=f"c{number}", reference=f"word{number}", language="en", speaker=speaker,
            recording="r", start_seconds=float(number), duration_seconds=seconds,
            samples=np.full(round(seconds * SAMPLE_RATE), number, dtype=np.float32),
        )  # fmt: skip

    clips = [
        clip(2, "a", 20),
        clip(1, "a", 20),
        clip(3, "a", 20),
        clip(4, "b", 5),
        clip(5, "b", 31),
    ]
    long = long_recordings(clips, 45.0)
    assert [c.reference for c in long] == ["word5", "word1 word2", "word3", "word4"]
    assert long[1].duration_seconds == pytest.approx(40.5)
    assert len(long[1].audio()) == round(40.5 * SAMPLE_RATE)


def test_a_model_does_not_differ_from_itself_and_does_from_a_worse_one():
    clips = [
        EvaluationClip(
            id=str(n), reference="a b c d", language="en", speaker="", recording="",
            start_seconds=0.0, duration_seconds=1.0,
        )
        for n in range(40)
    ]  # fmt: skip
    good = score_all(clips, ["a b c d"] * 38 + ["a b c e"] * 2)
    bad = score_all(clips, ["a b c x"] * 30 + ["a b c d"] * 10)
    same = compare(good, good, 0, 200)
    worse = compare(good, bad, 0, 200)
    assert same is not None
    assert worse is not None
    assert (same.wer_difference, same.p_value) == (0.0, 1.0)
    assert worse.wer_difference == pytest.approx((30 - 2) / 160)
    assert worse.low <= worse.wer_difference <= worse.high
    assert worse.p_value < 0.05


def test_spaces_are_no_characters_of_a_language_that_is_written_without_them():
    sample = make_sample("今日 は晴 れですね", language="ja")  # 8 characters in three groups
    clip = EvaluationClip(
        id=sample.id, reference=sample.reference, language=sample.language, speaker="",
        recording="", start_seconds=0.0, duration_seconds=1.0,
    )  # fmt: skip
    texts = ["今日は雨れですね"]
    assert rates([clip], texts, score_all([clip], texts), 0, 10).cer == 1 / 8
    assert count_errors((sample, b""), *texts) == [1, 8, 1, 8]


def test_a_loop_of_characters_is_a_loop_where_words_have_no_spaces():
    reference, loop = "今日はとても良い天気です。", "ありがとうございました" * 20
    clips = [
        EvaluationClip(
            id=name, reference=reference, language="ja", speaker="", recording="",
            start_seconds=0.0, duration_seconds=1.0,
        )
        for name in ("looping", "right")
    ]  # fmt: skip
    texts = [loop, reference.replace("とても", "とっても")]
    found = rates(clips, texts, score_all(clips, texts), 0, 10)
    assert found.metric == "cer"
    assert found.loops.longest_loop_id == "looping"
    assert found.loops.longest_loop == 19 * 11
    right = rates(clips[1:], texts[1:], score_all(clips[1:], texts[1:]), 0, 10)
    assert right.orthographic_wer == pytest.approx(1 / 13)


def test_recordings_alone_are_judged_where_only_long_modes_are_asked_for(
    configure: Configure, tmp_path: Path
):
    soundfile.write(tmp_path / "talk.wav", make_audio(31.0), 16_000)
    manifest = tmp_path / "talks.jsonl"
    line = {"audio_filepath": "talk.wav", "duration": 31.0, "text": "a b", "lang": "en"}
    manifest.write_text(json.dumps(line))
    config = configure(data=[str(manifest)], modes=["chunked", "sequential"])
    results = evaluate(config)
    assert (results.mode, results.num_clips, results.audio_seconds) == ("chunked", 1, 31.0)
    assert list(results.parts) == ["sequential"]  # chunked is not heard twice
    assert [row["reference"] for row in heard(config, 1)] == ["a b"]
    assert "<h2>Long recordings, chunked</h2>" in (Path(config.output) / "report.html").read_text()
    assert "WER, long, chunked" in comparison_table(results).splitlines()[0]
    with pytest.raises(ValueError, match="for recordings alone give sequential or chunked"):
        evaluate(configure(data=[str(manifest)]))


def test_a_recording_of_more_than_an_hour_can_be_judged(tmp_path: Path):
    path = tmp_path / "meeting.flac"
    soundfile.write(path, np.zeros(3601 * SAMPLE_RATE, dtype=np.int16), SAMPLE_RATE)
    clip = EvaluationClip(
        id="meeting", reference="a", language="en", speaker="", recording="",
        start_seconds=0.0, duration_seconds=3601.0, path=str(path),
    )  # fmt: skip
    assert len(clip.audio()) == 3601 * SAMPLE_RATE


def test_a_language_that_a_model_lacks_is_told_before_anything_is_heard(
    configure: Configure, teacher_folder: Path, tmp_path: Path
):
    english = tmp_path / "english"
    shutil.copytree(teacher_folder, english)
    settings = json.loads((english / "generation_config.json").read_text())
    settings["is_multilingual"] = False
    (english / "generation_config.json").write_text(json.dumps(settings))
    clips = [
        (make_sample(id=f"c-{code}", split="test", language=code), make_audio(1.0))
        for code in ("en", "de")
    ]
    data = [str(write_dataset(tmp_path / "x", clips))]
    config = configure(data=data, models=[str(teacher_folder), str(english)])
    with pytest.raises(ValueError, match="english cannot hear clip c-de: .*English only, not 'de'"):
        evaluate(config)
    assert not list(Path(config.output).glob("heard-*"))


def test_languages_and_speakers_are_told_apart(configure: Configure, tmp_path: Path):
    clips = [
        (make_sample(id=f"c-{n}", split="test", language=code, speaker=f"s{n}"), make_audio(1.0, n))
        for n, code in enumerate(("en", "de", "en"))
    ]
    (model, _) = evaluate(configure(data=[str(write_dataset(tmp_path / "x", clips))])).models
    assert set(model.by_language) == {"de", "en"}
    assert set(model.by_speaker) == {"en s0", "de s1", "en s2"}


def test_a_clip_in_another_script_does_not_end_the_rates_of_its_language():
    clips = [
        EvaluationClip(
            id=reference, reference=reference, language="en", speaker="", recording="",
            start_seconds=0.0, duration_seconds=1.0,
        )
        for reference in ("你好世界", "a b c d", "a b c")
    ]  # fmt: skip
    scores = score_all(clips, ["", "a b c x", "a b c"])
    assert {s.metric for s in scores} == {"cer", "wer"}
    assert break_down(clips, scores, lambda clip: clip.language) == {"en": round(1 / 7, 5)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "dev"}, r"there are \['test', 'train'\]"),
        ({"models": ["no/such"]}, "no Whisper model could be loaded from 'no/such'"),
        ({"robustness": RobustnessConfig(noises=["rain"])}, "neither white, pub, nor a folder"),
    ],
)
def test_what_is_missing_is_said(configure: Configure, fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        evaluate(configure(**fields))


def test_a_split_without_references_is_refused(configure: Configure, tmp_path: Path):
    clips = [(make_sample(reference="", id="c", split="test"), make_audio(1.0))]
    data = [str(write_dataset(tmp_path / "silent", clips))]
    with pytest.raises(ValueError, match="no clip of split 'test' has a reference"):
        evaluate(configure(data=data))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": []}, "models is empty"),
        ({"models": ["a", "a"]}, "names a model twice"),
        ({"modes": ["long"]}, "modes has 'long'"),
        ({"prompt_lengths": [224]}, "must be 0 to 223"),
        ({"latency_batches": [4, 0]}, "latency_batches is .* at least 1"),
        ({"modes": ["sequential"], "edges": True}, "edges needs clips of 30 s or less"),
        (
            {"chunk_lengths": [20.0, 10.0], "longform": LongformConfig(stride_seconds=5.0)},
            "stride must be below half of each length",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**{"models": ["a"], "data": ["b"], "output": "c"} | fields)


def test_noise_on_no_clip_is_refused():
    with pytest.raises(ValueError, match="robustness.max_clips is 0"):
        RobustnessConfig(noises=["white"], max_clips=0)
