import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill.__main__ import main
from distill.checkpoints import commit, differences, last_checkpoint, revoke
from distill.config import TrainConfig, ValidationConfig
from distill.data_config import AugmentConfig
from distill.encoder_memory import EncoderMemory
from distill.loss_config import LossConfig
from distill.student import load_model, load_processor
from distill.train import train
from tests.distill.material import KilledError, kill_at, make_audio

Configure = Callable[..., TrainConfig]


@pytest.fixture
def configure(short_training: TrainConfig) -> Configure:
    return functools.partial(dataclasses.replace, short_training)


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_model(str(folder)).state_dict()


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(second[name], weight) for name, weight in first.items())


def history(output: Path | str) -> list[dict[str, float]]:
    """The log of a run as its last checkpoint has it."""
    states = sorted(Path(output).glob("checkpoints/*/trainer_state.json"))
    logs = [json.loads(path.read_text()) for path in states]
    return max(logs, key=lambda log: log["global_step"])["log_history"]


def test_init_writes_a_student_that_loads(student_folder: Path, teacher_folder: Path):
    assert load_model(str(student_folder)).config.decoder_layers == 2
    last = weights(teacher_folder)["model.decoder.layers.3.fc1.weight"]
    assert torch.equal(weights(student_folder)["model.decoder.layers.1.fc1.weight"], last)
    assert load_processor(str(student_folder)).tokenizer.get_vocab()["<|startoftranscript|>"]


def test_training_changes_the_decoder_and_nothing_that_is_frozen(
    configure: Configure, student_folder: Path
):
    before, after = weights(student_folder), weights(train(configure()))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.decoder.layers.0.fc1.weight" in changed
    assert "model.decoder.embed_tokens.weight" in changed
    assert not [n for n in changed if "encoder.layers" in n or n.startswith("model.encoder")]
    assert not [n for n in changed if "embed_positions" in n]


def test_a_trained_student_keeps_its_generation_settings(configure: Configure):
    folder = train(configure(max_steps=1))
    settings = load_model(str(folder)).generation_config.to_dict()
    assert settings["is_multilingual"]
    assert settings["lang_to_id"]
    features = torch.randn(1, 80, 3000)
    load_model(str(folder)).generate(features, language="en", task="transcribe")


def test_the_resolved_configuration_stands_beside_the_student(configure: Configure, tmp_path: Path):
    config = configure(max_steps=1)
    train(config)
    path = tmp_path / "run" / "train.yaml"
    assert yaml.safe_load(path.read_text()) == dataclasses.asdict(config)
    shutil.rmtree(tmp_path / "run" / "student")
    assert main(["train", f"--config={path}"]) == 0
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()


def losses(output: Path | str) -> list[tuple[float, float, float]]:
    return [(e["step"], e["loss"], e["kl"]) for e in history(output) if "loss" in e]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_resumed_twice_is_the_undisturbed_one_bit_for_bit(
    configure: Configure, tmp_path: Path, num_workers: int, with_dropout: str
):
    """With dropout, an average, and a save that is no multiple of the logging."""
    fields: dict[str, Any] = {
        "student": with_dropout,
        "max_steps": 6,
        "logging_steps": 3,
        "average_decay": 0.9,
        "schedule": "linear",
        "data": dataclasses.replace(
            configure().data,
            num_workers=num_workers,
            augment=AugmentConfig(time_masks=2, speed_probability=0.5),
        ),
    }
    whole = train(configure(output=str(tmp_path / "whole"), **fields))
    for step in (3, 5):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step)
            with pytest.raises(KilledError):
                train(configure(**fields))
    resumed = train(configure(**fields))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert [step for step, *_ in losses(tmp_path / "run")] == [2, 3, 4, 6]
    assert_same_weights(whole, resumed)
    ends = [tmp_path / run / "checkpoints" / "checkpoint-6" for run in ("whole", "run")]
    assert_same_weights(*ends)
    for name in ("optimizer.pt", "scheduler.pt"):
        states = [torch.load(end / name) for end in ends]
        torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    cards = [json.loads((tmp_path / run / "run.json").read_text()) for run in ("whole", "run")]
    assert cards[0]["tokens"] == cards[1]["tokens"] > 0


@pytest.fixture(scope="module")
def with_dropout(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = shutil.copytree(student_folder, tmp_path_factory.mktemp("dropout") / "student")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dropout": 0.1}))
    return str(folder)


def test_a_finished_run_is_not_trained_further(configure: Configure, tmp_path: Path):
    folder = train(configure())
    kept = shutil.copytree(folder, tmp_path / "kept")
    shutil.rmtree(folder)
    assert train(configure()) == folder
    assert_same_weights(kept, folder)
    assert not list(Path(configure().output).glob("checkpoints/checkpoint-5"))


def test_a_half_written_checkpoint_is_passed_over(configure: Configure):
    config = configure()
    train(config)
    newest = Path(config.output) / "checkpoints" / "checkpoint-4"
    whole = newest.with_name("checkpoint-2")
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:-1])
    found = last_checkpoint(config)
    assert found is not None
    assert (found.folder, found.step) == (whole, 2)
    revoke(whole)
    assert last_checkpoint(config) is None


@pytest.mark.parametrize("files_before_death", range(1, 12, 2))
def test_a_kill_while_saving_leaves_the_checkpoint_before(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_before_death: int
):
    """The Trainer writes eleven files or so; whichever is the last, its folder does not count."""
    folder = tmp_path / "run" / "checkpoints"
    for step in (2, 4):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        for number in range(files_before_death):
            (folder / f"checkpoint-{step}" / f"file-{number}").write_text("x")
    commit(folder / "checkpoint-2", 2, 10, configure(), 1)
    found = last_checkpoint(configure())
    assert found is not None
    assert found.step == 2
    commit(folder / "checkpoint-4", 4, 20, configure(), 1)
    revoke(folder / "checkpoint-4")  # as before it is written again
    assert last_checkpoint(configure()) == found


def test_checkpoints_of_an_earlier_release_are_refused_not_removed(
    configure: Configure, tmp_path: Path
):
    state = tmp_path / "run" / "checkpoints" / "checkpoint-9" / "trainer_state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    with pytest.raises(ValueError, match="not a checkpoint of this release"):
        train(configure())
    assert state.is_file()
    revoke(state.parent)  # but one that a kill left half is of this release
    assert last_checkpoint(configure()) is None


def test_old_checkpoints_go_when_a_newer_one_is_whole(configure: Configure, tmp_path: Path):
    train(configure(max_steps=6, save_steps=2, keep_checkpoints=1))
    left = [path.name for path in (tmp_path / "run" / "checkpoints").glob("checkpoint-*")]
    assert left == ["checkpoint-6"]


def test_a_training_that_remembers_is_resumed_bit_for_bit(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
):
    """Though its memory is empty then, and clips come back among others than before."""
    memories = []

    def remember(kept_bytes: int) -> EncoderMemory:
        memories.append(EncoderMemory(kept_bytes))
        return memories[-1]

    monkeypatch.setattr("distill.train.EncoderMemory", remember)
    config = configure(max_steps=6, encoder_memory_gib=0.5)
    whole = train(dataclasses.replace(config, output=config.output + "-whole"))
    assert memories[0].hits > memories[0].misses
    assert memories[0].kept_bytes == 2**29
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(KilledError):
            train(config)
    resumed = train(config)
    assert losses(whole.parent) == losses(resumed.parent)
    assert_same_weights(whole, resumed)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder_memory_gib": -1.0}, "encoder_memory_gib is -1.0"),
        ({"encoder_memory_gib": 1.0, "freeze_encoder": False}, "freeze_encoder is false"),
    ],
)
def test_a_memory_that_cannot_be_is_refused(
    configure: Configure, fields: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        configure(**fields)


def test_a_run_may_be_told_not_to_resume_and_then_leaves_nothing_of_the_earlier_one(
    configure: Configure,
):
    config = configure(max_steps=4)
    train(config)
    anew = dataclasses.replace(config, resume=False, max_steps=2)
    assert last_checkpoint(anew) is None
    train(anew)
    found = last_checkpoint(dataclasses.replace(config))
    assert found is not None
    assert found.step == 2


def test_a_checkpoint_of_another_configuration_is_refused_with_what_differs(configure: Configure):
    config = configure(max_steps=2)
    train(config)
    other = dataclasses.replace(
        config,
        learning_rate=5e-4,
        loss=LossConfig(temperature=3.0),
        data=dataclasses.replace(config.data, num_workers=1),
        logging_steps=7,
    )
    with pytest.raises(ValueError, match="another configuration") as refusal:
        train(other)
    message = str(refusal.value)
    for part in (
        "learning_rate (checkpoint: 0.0001, now: 0.0005)",
        "loss.temperature (checkpoint: 2.0, now: 3.0)",
        "data.num_workers (checkpoint: 0, now: 1)",
        "resume: false",
    ):
        assert part in message
    assert "logging_steps" not in message


@pytest.mark.parametrize(
    ("schedule", "refused"), [("linear", True), ("constant_with_warmup", False)]
)
def test_more_steps_are_another_training_only_where_the_schedule_depends_on_them(
    configure: Configure, schedule: Any, refused: bool
):
    before = json.loads(json.dumps(dataclasses.asdict(configure(schedule=schedule, max_steps=2))))
    now = json.loads(json.dumps(dataclasses.asdict(configure(schedule=schedule, max_steps=4))))
    assert differences(before, now) == ["max_steps (checkpoint: 2, now: 4)"] * refused


def test_another_number_of_processes_is_refused(configure: Configure, tmp_path: Path):
    folder = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    folder.mkdir(parents=True)
    commit(folder, 2, 10, configure(), 2)
    with pytest.raises(ValueError, match=r"processes \(checkpoint: 2, now: 1\)"):
        last_checkpoint(configure())


TERMINATED = """
import sys
from distill.__main__ import main
sys.exit(main(["train", f"--config={sys.argv[1]}"]))
"""


def test_sigterm_saves_the_step_and_the_same_command_goes_on(configure: Configure, tmp_path: Path):
    config = configure(max_steps=5000, save_steps=5000)
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(dataclasses.asdict(config)))
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, str(path)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
    )
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if "step 2 of 5000" in line:
            process.terminate()
    assert process.wait(timeout=120) == 143, "".join(lines)
    assert "it is saved" in lines[-1]
    assert not [line for line in lines if "Traceback" in line]
    found = last_checkpoint(config)
    assert found is not None
    assert 2 <= found.step < 100
    assert not (tmp_path / "run" / "student").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["ended"] == "stopped"
    train(dataclasses.replace(config, max_steps=found.step + 1))
    assert [s for s, *_ in losses(config.output)] == [*range(1, found.step + 2)]


@pytest.fixture
def validated(configure: Configure, dataset: Path) -> Configure:
    def make(**fields: Any) -> TrainConfig:
        shards = [str(dataset)]
        validation = ValidationConfig(
            shards=shards, split="test", every_steps=1, max_clips=3, **fields
        )
        return configure(validation=validation, max_steps=3)

    return make


def rates(values: list[float]) -> Callable[..., dict[str, float]]:
    remaining = iter(values)
    return lambda _counts: {"wer": next(remaining)}


def test_the_student_with_the_best_validation_is_the_one_that_is_written(
    validated: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A rate of 9.9 % is better than one of 10.1 %, also as text."""
    monkeypatch.setattr("distill.trainer.error_rates", rates([0.2, 0.099, 0.101]))
    config = dataclasses.replace(validated(), save_steps=1, keep_checkpoints=3)
    student = train(config)
    assert_same_weights(student, tmp_path / "run" / "checkpoints" / "checkpoint-2")
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (card["best_step"], card["best_wer"], card["ended"]) == (2, 0.099, "finished")
    assert [line["eval_wer"] for line in card["validations"]] == [0.2, 0.099, 0.101]
    written = (tmp_path / "run" / "run.md").read_text()
    assert "9.90% WER at step 2" in written


def test_a_training_without_progress_stops_and_is_then_done(
    validated: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("distill.trainer.error_rates", rates([0.2, 0.3, 0.25]))
    config = dataclasses.replace(validated(patience=2), max_steps=50)
    train(config)
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (card["ended"], card["steps"]) == ("patience", 3)
    train(config)  # no rate is left to give: a further step would fail
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == card


def test_validation_decodes_and_is_shown_in_tensorboard(validated: Configure, tmp_path: Path):
    config = validated()
    train(dataclasses.replace(config, max_steps=2))
    events = EventAccumulator(
        str(next((tmp_path / "run").rglob("events.out.*")).parent), size_guidance={"tensors": 0}
    )
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"eval/wer", "eval/wer_tones", "train/loss", "train/kl", "train/ce"} <= scalars
    assert {"train/grad_norm", "train/learning_rate"} <= scalars
    assert any(tag.startswith("validation/test-") for tag in events.Tags()["tensors"])
    assert any(tag.startswith("validation/test-") for tag in events.Tags()["audio"])


def test_the_average_becomes_the_student(configure: Configure, tmp_path: Path):
    student = train(configure(average_decay=0.9, max_steps=2))
    last = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    average = load_file(last / "average.safetensors")
    found, raw = weights(student), weights(last)
    for name in found.keys() - {"proj_out.weight"}:  # the embeddings under another name
        assert torch.equal(found[name], average.get(name, raw[name])), name
    name = "model.decoder.layers.0.fc1.weight"
    assert not torch.equal(average[name], raw[name])


def test_the_mean_of_the_last_checkpoints_becomes_the_student(configure: Configure, tmp_path: Path):
    config = configure(average_last=3, keep_checkpoints=3, save_steps=1)
    student = train(config)
    checkpoints = [tmp_path / "run" / "checkpoints" / f"checkpoint-{n}" for n in (2, 3, 4)]
    steps = [weights(folder) for folder in checkpoints]
    for name, weight in weights(student).items():
        mean = torch.stack([step[name] for step in steps]).mean(0)
        torch.testing.assert_close(weight, mean, rtol=1e-5, atol=1e-7)
    name = "model.decoder.layers.0.fc1.weight"
    assert not torch.equal(weights(student)[name], steps[-1][name])
    assert_same_weights(train(dataclasses.replace(config, average_last=None)), checkpoints[-1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"average_last": 1}, "average_last is 1"),
        ({"average_last": 3}, "average_last is 3, keep_checkpoints 2"),
        ({"average_last": 2, "average_decay": 0.9}, "average_last and average_decay both say"),
        (
            {"average_last": 2, "validation": ValidationConfig(shards=["a"])},
            "average_last and validation both say",
        ),
    ],
)
def test_an_average_that_cannot_be_is_refused(
    configure: Configure, fields: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        configure(**fields)


def test_layers_are_listed_on_the_command_line(teacher_folder: Path, tmp_path: Path):
    arguments = ["init", f"--teacher={teacher_folder}", f"--output={tmp_path}"]
    assert main([*arguments, "--layers", "1", "-1"]) == 0
    for place, layer in enumerate((1, 3)):
        copied = weights(tmp_path)[f"model.decoder.layers.{place}.fc1.weight"]
        expected = weights(teacher_folder)[f"model.decoder.layers.{layer}.fc1.weight"]
        assert torch.equal(copied, expected)
    assert main([*arguments, "--layers", "0", "4"]) == 1


def test_a_checkpoint_loads_in_plain_transformers_and_ctranslate2(
    configure: Configure, tmp_path: Path
):
    train(configure(max_steps=2))
    for folder in (tmp_path / "run" / "student", tmp_path / "run" / "checkpoints" / "checkpoint-2"):
        recognise: Any = transformers.pipeline("automatic-speech-recognition", model=str(folder))
        audio = make_audio(1.0)
        sound = {"raw": audio, "sampling_rate": 16000}
        found = recognise(sound, generate_kwargs={"language": "en", "max_new_tokens": 5})
        assert isinstance(found["text"], str)
        ctranslate2 = pytest.importorskip("ctranslate2")
        from ctranslate2.converters import TransformersConverter

        converted = tmp_path / f"{folder.name}-ct2"
        TransformersConverter(str(folder)).convert(str(converted))
        model = ctranslate2.models.Whisper(str(converted), device="cpu")
        features = load_processor(str(folder)).feature_extractor(
            audio, sampling_rate=16000, return_tensors="np"
        )
        names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
        prompt = load_processor(str(folder)).tokenizer.convert_tokens_to_ids(names)
        view = ctranslate2.StorageView.from_array(features.input_features)
        assert model.generate(view, [prompt], max_length=8)[0].sequences_ids


def test_accumulated_batches_also_end_at_max_steps(configure: Configure):
    config = configure(max_steps=2, gradient_accumulation_steps=3)
    train(config)
    found = last_checkpoint(config)
    assert found is not None
    assert found.step == 2


@pytest.mark.parametrize(
    "loss",
    [LossConfig(preset="labels-only"), LossConfig(ce_weight=0.0, kl_weight=1.0), LossConfig()],
    ids=["labels", "teacher", "both"],
)
def test_the_loss_falls_on_a_few_clips(configure: Configure, loss: LossConfig):
    teacher = None if loss.weights[1] == 0 else configure().teacher
    config = configure(
        loss=loss, teacher=teacher, max_steps=20, learning_rate=3e-3, logging_steps=2, save_steps=20
    )
    train(config)
    losses = [entry["loss"] for entry in history(config.output) if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


def test_references_can_be_learnt_without_a_teacher_and_with_the_encoder(configure: Configure):
    config = configure()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, target="reference", num_workers=1),
        loss=LossConfig(preset="labels-only"),
        teacher=None,
        freeze_encoder=False,
        freeze_positions=False,
    )
    before, after = weights(config.student), weights(train(config))
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {"model.encoder.embed_positions.weight"}


def test_skipped_layers_are_a_matter_of_the_training_and_not_of_the_student(
    configure: Configure, tmp_path: Path, teacher_folder: Path
):
    options = {"student": str(teacher_folder), "max_steps": 2}
    whole = train(configure(**options))
    dropped = train(configure(**options, decoder_layerdrop=0.9, output=str(tmp_path / "dropped")))

    assert any(not torch.equal(w, weights(dropped)[n]) for n, w in weights(whole).items())
    assert load_model(str(dropped)).config.decoder_layerdrop == 0.0


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_layers_that_cannot_be_skipped_is_refused(configure: Configure, share: float):
    with pytest.raises(ValueError, match="decoder_layerdrop is"):
        configure(decoder_layerdrop=share)


def test_training_in_bfloat16_writes_float32_weights(configure: Configure):
    folder = train(configure(dtype="bfloat16", max_steps=2))
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    model = load_model(str(folder))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "sdpa"


def test_wrong_shards_are_said_before_any_model_is_loaded(configure: Configure, tmp_path: Path):
    data = dataclasses.replace(configure().data, shards=[str(tmp_path / "nowhere")])
    with pytest.raises(FileNotFoundError, match="not a finished dataset"):
        train(configure(data=data, teacher="no/such/teacher"))
    assert not (tmp_path / "run").exists()
