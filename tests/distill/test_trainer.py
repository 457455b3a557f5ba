import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import TrainerCallback, WhisperForConditionalGeneration

from distill.averaging import WeightAverage
from distill.checkpoints import newest_checkpoint
from distill.config import TrainConfig
from distill.data import Batch, BatchStream
from distill.data_config import Stage
from distill.distillation import Distillation
from distill.loss_config import LossConfig
from distill.losses import IGNORED
from distill.student import make_student
from distill.trainer import DistillationTrainer, NonFiniteLossError, training_arguments
from tests.distill.material import make_training_batch

Whisper = WhisperForConditionalGeneration


@pytest.fixture
def student(teacher: Whisper) -> Whisper:
    return make_student(teacher, decoder_layers=2)


def distillation(
    student: Whisper,
    teacher: Whisper | None,
    *,
    freeze_encoder: bool = True,
    freeze_positions: bool = True,
    **loss: Any,
) -> Distillation:
    return Distillation(student, teacher, LossConfig(**loss), freeze_encoder, freeze_positions)


def rows(batch: dict[str, Any], chosen: slice) -> dict[str, Any]:
    return {name: value[chosen] for name, value in batch.items()}


def loss_by_hand(
    student: Whisper, teacher: Whisper, batch: dict[str, Any], ce_weight: float, kl_weight: float
) -> float:
    """The loss from the library's own forward passes, token by token."""
    inputs = {k: batch[k] for k in ("input_features", "decoder_input_ids")}
    ours, theirs = student(**inputs).logits, teacher(**inputs).logits
    terms = []
    for row, column in (batch["labels"] != IGNORED).nonzero().tolist():
        log_p = functional.log_softmax(ours[row, column], dim=-1)
        q = functional.softmax(theirs[row, column] / 2.0, dim=-1)
        log_p_soft = functional.log_softmax(ours[row, column] / 2.0, dim=-1)
        ce = -log_p[batch["labels"][row, column]]
        terms.append(ce_weight * ce + kl_weight * (q * (q.log() - log_p_soft)).sum())
    return torch.stack(terms).mean().item()


@pytest.mark.parametrize(
    ("preset", "ce_weight", "kl_weight"),
    [("paper", 1.0, 0.8), ("released-code", 0.8, 4.0), ("labels-only", 1.0, 0.0)],
)
@torch.no_grad()
def test_the_loss_is_what_the_library_and_the_formula_give(
    student, teacher, preset: Any, ce_weight: float, kl_weight: float
):
    batch = make_training_batch(3000)
    found = distillation(student, teacher, preset=preset).eval()(**batch)["loss"].item()
    expected = loss_by_hand(student, teacher, batch, ce_weight, kl_weight)
    assert found == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_a_teacher_with_another_encoder_hears_with_its_own(student, teacher):
    student.model.encoder.conv1.weight.mul_(0.5)
    step, batch = distillation(student, teacher).eval(), make_training_batch(3000)
    assert not step.share_encoder
    expected = loss_by_hand(student, teacher, batch, 1.0, 0.8)
    assert step(**batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_same_frozen_encoder_runs_once(student, teacher):
    step, runs = distillation(student, teacher), []
    for model in (student, teacher):
        model.model.encoder.layers[0].register_forward_hook(lambda *_: runs.append(1))
    assert step.share_encoder
    step(**make_training_batch())
    assert len(runs) == 1
    trained = distillation(student, teacher, freeze_encoder=False)
    assert not trained.share_encoder
    trained(**make_training_batch())
    assert len(runs) == 3


@torch.no_grad()
def test_a_copy_of_the_teacher_has_no_divergence(teacher):
    twin = make_student(teacher, decoder_layers=4)
    found = distillation(twin, teacher).eval()(**make_training_batch())
    assert found["kl"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("preset", ["paper", "released-code"])
def test_loss_and_gradient_do_not_depend_on_the_split_into_micro_batches(
    student, teacher, preset: Any
):
    step, batch = distillation(student, teacher, preset=preset), make_training_batch()
    tokens = (batch["labels"] != IGNORED).sum()
    whole = step(**batch)["loss"]
    whole.backward()
    expected = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    total = 0.0
    for part in (slice(0, 1), slice(1, 3)):
        loss = step(**rows(batch, part), num_items_in_batch=tokens)["loss"]
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), rel=1e-6)
    assert expected
    for name, parameter in student.named_parameters():
        if name in expected:
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_padded_and_prompt_positions_get_no_gradient(student, teacher):
    step, batch, seen = distillation(student, teacher), make_training_batch(), []

    def keep(_module, _inputs, output):
        output.last_hidden_state.retain_grad()
        seen.append(output.last_hidden_state)

    student.model.decoder.register_forward_hook(keep)
    step(**batch)["loss"].backward()
    has_gradient = seen[0].grad.abs().sum(-1) > 0
    assert torch.equal(has_gradient, batch["labels"] != IGNORED)


@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(student, teacher):
    step, batch = distillation(student, teacher).eval(), make_training_batch()
    before = step(**batch)["loss"]
    batch["decoder_input_ids"][0, 4:] = 1
    batch["decoder_input_ids"][2, 1:] = 2
    assert torch.equal(step(**batch)["loss"], before)
    batch["decoder_input_ids"][1, 1] = 3  # the prompt does: it is read, only not learnt
    assert not torch.equal(step(**batch)["loss"], before)


def test_the_teacher_is_given_the_decoder_inputs_of_the_student(student, teacher):
    step, batch, seen = distillation(student, teacher), make_training_batch(), []
    for model in (student, teacher):
        model.model.decoder.register_forward_pre_hook(
            lambda _module, _args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
        )
    step(**batch)
    assert len(seen) == 2
    assert all(torch.equal(inputs, batch["decoder_input_ids"]) for inputs in seen)


def test_a_loss_without_kl_does_not_run_the_teacher(student, teacher):
    runs = []
    teacher.model.decoder.register_forward_hook(lambda *_: runs.append(1))
    found = distillation(student, teacher, preset="labels-only")(**make_training_batch())
    assert found.keys() == {"loss", "ce"}
    assert not runs


def test_the_teacher_is_neither_trained_nor_saved(student, teacher):
    step = distillation(student, teacher)
    assert step.state_dict().keys() == {f"student.{name}" for name in student.state_dict()}
    assert not any(p.requires_grad for p in teacher.parameters())
    step.train()
    assert not teacher.training
    step(**make_training_batch())["loss"].backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_the_teacher_moves_with_the_student(student, teacher):
    distillation(student, teacher).to(torch.float64)
    assert teacher.dtype == student.dtype == torch.float64


def test_a_frozen_encoder_stays_in_evaluation_mode_and_gets_no_gradient(student, teacher):
    step = distillation(student, teacher)
    step.train()
    assert student.model.decoder.training
    assert not any(module.training for module in student.model.encoder.modules())
    step(**make_training_batch())["loss"].backward()
    assert all(p.grad is None for p in student.model.encoder.parameters())
    assert student.model.decoder.embed_positions.weight.grad is None
    assert student.model.decoder.layers[0].fc1.weight.grad is not None


def test_an_encoder_that_is_not_frozen_learns_all_but_its_positions(student):
    step = distillation(
        student, None, preset="labels-only", freeze_encoder=False, freeze_positions=False
    )
    step.train()
    assert student.model.encoder.training
    step(**make_training_batch())["loss"].backward()
    without = {n for n, p in student.named_parameters() if p.grad is None}
    assert without == {"model.encoder.embed_positions.weight"}


@pytest.mark.parametrize(("name", "value"), [("vocab_size", 100), ("num_mel_bins", 128)])
def test_a_student_that_cannot_be_compared_is_refused(student, teacher, name: str, value: int):
    setattr(student.config, name, value)
    with pytest.raises(ValueError, match=f"the student's {name} is {value}"):
        distillation(student, teacher)


@torch.no_grad()
def test_training_in_bfloat16_leaves_evaluation_untouched(student, teacher):
    step, batch = distillation(student, teacher), make_training_batch()
    before = step.eval()(**batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = step.train()(**batch)["loss"]
    assert student.config._attn_implementation == "eager"
    assert rounded.dtype == torch.float32
    assert rounded != before
    assert torch.equal(step.eval()(**batch)["loss"], before)
    assert student.config._attn_implementation == teacher.config._attn_implementation == "sdpa"
    assert student.dtype == torch.float32


class Given(BatchStream):
    """A stream of given batches, again and again."""

    batches: tuple[dict[str, Any], ...] = ()

    def __iter__(self) -> Iterator[Batch]:
        return itertools.cycle(self.batches)


class Recorder(TrainerCallback):
    """Keeps the gradients of each optimiser step, and what went through the model."""

    def __init__(self, step: Distillation) -> None:
        self.step = step
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.inputs: list[torch.Tensor] = []
        step.student.model.decoder.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        self.inputs.append(kwargs["input_ids"])

    def on_pre_optimizer_step(self, *_args: Any, **_kwargs: Any) -> None:
        parameters = self.step.student.named_parameters()
        self.gradients.append({n: p.grad.clone() for n, p in parameters if p.grad is not None})


@pytest.fixture
def train_config(data_config, tmp_path: Path):
    def make(**fields: Any) -> TrainConfig:
        fields = {"max_steps": 1, "logging_steps": 1, "warmup_steps": 0, **fields}
        data = data_config(batch_seconds=30.0, curriculum=[Stage(max_seconds=4.0, full_windows=0)])
        return TrainConfig(output=str(tmp_path), data=data, student="", device="cpu", **fields)

    return make


def trainer_of(
    step: Distillation, config: TrainConfig, processor, *batches: dict[str, Any]
) -> tuple[DistillationTrainer, Recorder]:
    kind = Given if batches else BatchStream
    stream = kind(config.data, processor, config.seed)
    if isinstance(stream, Given):
        stream.batches = batches
    trainer = DistillationTrainer(step, training_arguments(config), stream, processor, config)
    recorder = Recorder(step)
    trainer.add_callback(recorder)
    return trainer, recorder


def test_the_trainer_weighs_every_token_the_same_over_accumulated_batches(
    teacher, train_config, processor
):
    batch = make_training_batch()
    found = []
    for parts in ((slice(0, 3),), (slice(0, 1), slice(1, 3)), (slice(0, 2), slice(2, 3))):
        step = distillation(make_student(teacher), teacher)
        config = train_config(gradient_accumulation_steps=len(parts), max_grad_norm=1e9)
        trainer, recorder = trainer_of(step, config, processor, *(rows(batch, p) for p in parts))
        trainer.train()
        found.append((trainer.state.log_history[0]["loss"], recorder.gradients[0]))
    expected_loss, expected = found[0]
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_a_process_trains_on_one_of_several_gpus_and_says_how_to_use_all(
    student, teacher, train_config, processor, monkeypatch: pytest.MonkeyPatch, caplog
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = dataclasses.replace(train_config(), device="auto")
    arguments = training_arguments(config)
    assert arguments.n_gpu == 1
    assert "torchrun --nproc_per_node 2 -m distill train" in caplog.text
    stream = BatchStream(config.data, processor, config.seed)
    step = distillation(student, teacher)
    trainer = DistillationTrainer(step, arguments, stream, processor, config)
    assert trainer._wrap_model(step) is step


def test_the_trainer_draws_the_stream_once_from_its_beginning(
    student, teacher, train_config, processor
):
    config = train_config(max_steps=5, gradient_accumulation_steps=2)
    trainer, recorder = trainer_of(distillation(student, teacher), config, processor)
    trainer.train()
    stream = BatchStream(config.data, processor, config.seed)
    expected = [torch.as_tensor(b["decoder_input_ids"]) for b in itertools.islice(stream, 10)]
    assert len(recorder.inputs) == 10
    assert all(torch.equal(a, b) for a, b in zip(recorder.inputs, expected, strict=True))


def test_a_checkpoint_holds_the_student_alone(student, teacher, train_config, processor):
    config = train_config(max_steps=2)
    trainer, _ = trainer_of(distillation(student, teacher), config, processor)
    trainer.train()
    folder = Path(config.output) / "checkpoints" / "checkpoint-2"
    weights = load_file(folder / "model.safetensors")
    loaded = Whisper.from_pretrained(folder)
    assert set(weights) <= set(loaded.state_dict())
    assert sum(w.numel() for w in weights.values()) == sum(p.numel() for p in student.parameters())
    assert loaded.config.decoder_layers == 2
    assert (folder / "tokenizer.json").is_file()


def test_weight_decay_spares_biases_and_layer_norms(student, teacher, train_config, processor):
    config = train_config(weight_decay=0.1)
    step = distillation(student, teacher)
    trainer, _ = trainer_of(step, config, processor)
    decayed = trainer.get_decay_parameter_names(step)
    assert "student.model.decoder.layers.0.fc1.weight" in decayed
    assert not [name for name in decayed if "layer_norm" in name or name.endswith("bias")]


def test_the_spelling_term_adds_to_the_loss_and_teaches_the_encoder(student):
    loss = LossConfig(preset="labels-only", ctc_weight=0.5)
    step = Distillation(student, None, loss, False, False, letters=[5, 6, 7]).train()
    spelling = torch.tensor([[1, 2, 1], [2, 0, 0], [0, 0, 0]])
    found = step(**make_training_batch(), spelling=spelling)
    assert found["loss"].item() == pytest.approx((found["ce"] + 0.5 * found["ctc"]).item(), 1e-6)
    assert found["ctc"] > 0
    (found["loss"] - found["ce"]).backward()
    convolution = student.model.encoder.conv1.weight.grad
    assert convolution is not None
    assert convolution.abs().sum() > 0


def test_a_loss_that_is_not_finite_stops_with_the_names_of_the_clips(
    student, teacher, train_config, processor
):
    good, bad = make_training_batch(), make_training_batch(seed=1)
    bad["input_features"][0, 0, 0] = float("nan")
    good["ids"], bad["ids"] = ["fine"], ["clip-7", "clip-8"]
    config = train_config(max_steps=3, save_steps=1)
    trainer, _ = trainer_of(distillation(student, teacher), config, processor, good, bad)
    with pytest.raises(
        NonFiniteLossError, match="loss of step 2 is nan on the clips clip-7, clip-8"
    ):
        trainer.train()
    newest = newest_checkpoint(Path(config.output))
    assert newest is not None
    assert newest.step == 1
    saved = Whisper.from_pretrained(newest.folder)
    assert all(weight.isfinite().all() for weight in saved.state_dict().values())


def test_a_gradient_that_is_not_finite_stops_before_it_spoils_the_weights(
    student, teacher, train_config, processor
):
    batch = {**make_training_batch(), "ids": ["clip-3"]}
    config = train_config(max_steps=2)
    trainer, _ = trainer_of(distillation(student, teacher), config, processor, batch)
    student.model.decoder.layers[0].fc1.weight.register_hook(lambda g: g * float("inf"))
    with pytest.raises(
        NonFiniteLossError, match="gradient of step 1 is not finite on the clips clip-3"
    ):
        trainer.train()
    assert all(weight.isfinite().all() for weight in student.state_dict().values())


def test_the_log_has_the_parts_of_the_loss(student, teacher, train_config, processor):
    config = train_config(max_steps=4, logging_steps=2, gradient_accumulation_steps=2)
    trainer, _ = trainer_of(
        distillation(student, teacher),
        config,
        processor,
        make_training_batch(),
        make_training_batch(seed=1),
    )
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert line["loss"] == pytest.approx(line["ce"] + 0.8 * line["kl"], rel=1e-5)
        assert {"grad_norm", "learning_rate"} <= line.keys()
    assert trainer.tokens == 4 * 2 * 11


@pytest.mark.parametrize("freeze_encoder", [True, False])
def test_gradient_checkpointing_changes_no_gradient(student, teacher, freeze_encoder: bool):
    batch, found = make_training_batch(), []
    for _ in range(2):
        step = distillation(student, teacher, freeze_encoder=freeze_encoder).train()
        student.zero_grad()
        loss = step(**batch)["loss"]
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in student.parameters() if p.grad is not None)])
        student.gradient_checkpointing_enable({"use_reentrant": False})
    assert len(found[0]) > 10
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_weights_are_frozen_by_name_and_an_unknown_name_is_refused(student, teacher):
    step = Distillation(
        student, teacher, LossConfig(), True, True, frozen=["*.layers.0.*", "*embed_tokens*"]
    )
    step(**make_training_batch())["loss"].backward()
    trained = {n for n, p in student.named_parameters() if p.grad is not None}
    assert trained
    assert not [n for n in trained if ".layers.0." in n or "embed_tokens" in n]
    with pytest.raises(ValueError, match=r"'\*.layers.9.\*', which matches no weight"):
        Distillation(student, teacher, LossConfig(), True, True, frozen=["*.layers.9.*"])
    with pytest.raises(ValueError, match="nothing to train"):
        Distillation(student, teacher, LossConfig(), True, True, frozen=["*"])


@pytest.mark.slow
def test_compiled_decoders_give_the_same_loss(student, teacher):
    batch = make_training_batch()
    plain = distillation(student, teacher).eval()(**batch)["loss"]
    compiled = Distillation(student, teacher, LossConfig(), True, True, compiled=True).eval()
    torch.testing.assert_close(compiled(**batch)["loss"], plain, rtol=1e-5, atol=0)


def test_the_average_follows_the_weights_and_leaves_them_as_they_are():
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        for value in (1.0, 2.0):
            model.weight.fill_(value)
            average.update()
    # decays of 0.1 and 2 / 11: 0.9, then 0.9 * 2 / 11 + 2 * 9 / 11
    expected = 0.9 * 2 / 11 + 2 * 9 / 11
    with average.applied():
        assert model.weight[0, 0].item() == pytest.approx(expected)
    assert model.weight[0, 0].item() == 2.0


def test_an_average_survives_saving_and_spares_what_is_frozen(student, tmp_path: Path):
    student.model.encoder.requires_grad_(False)
    average = WeightAverage(student, 0.9)
    assert not [name for name in average.weights if "encoder.layers" in name]
    average.update()
    average.save(tmp_path)
    again = WeightAverage(student, 0.9)
    again.load(tmp_path)
    assert again.updates == 1
    torch.testing.assert_close(again.weights, average.weights)


def test_a_process_that_ends_with_its_loader_open_does_not_wait_for_it():
    """A training that fails holds its loader until the end; its processes ignore SIGTERM."""
    code = (
        "import sys\n"
        "from torch.utils.data import DataLoader\n"
        "from distill import trainer\n"
        "ready = trainer._leave_stopping_to_the_trainer\n"
        "loader = iter(DataLoader(range(1000), num_workers=1, worker_init_fn=ready))\n"
        "next(loader)\n"
        "sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert done.returncode == 3
