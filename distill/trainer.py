"""The distillation step, and the Trainer around it.

`Distillation.forward` is one training step: encoder once, student and teacher decoders on the same
inputs, masked positions dropped before the vocabulary projection, logits of a few tokens at a time,
one loss divided by the tokens of the whole optimiser step. Everything around it (optimiser,
schedule, checkpoints, resume, devices) is transformers' Trainer.
"""

import atexit
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from distill.averaging import WeightAverage
from distill.checkpoints import commit, remove_old, replacing_folder, revoke
from distill.config import LossConfig, TrainConfig
from distill.data import BatchStream
from distill.hidden import HiddenLoss, HiddenStates, capturing
from distill.joint import load_joint, save_joint
from distill.losses import count_labels, label_positions, spelling_loss
from distill.progress import show_samples
from distill.projection import projected_loss
from distill.stopping import StopRequest
from distill.student import encode, freeze
from distill.validation import Clip, error_rates, hear, shared_counts

logger = logging.getLogger(__name__)

EAGER_FRAMES = 1000
"""Windows up to here use plain attention on a CPU in bfloat16; see `choose_attention`."""


class Distillation(nn.Module):
    """A student with its loss; the teacher is at hand, but is neither trained nor saved."""

    def __init__(
        self,
        student: WhisperForConditionalGeneration,
        teacher: WhisperForConditionalGeneration | None,
        loss: LossConfig,
        freeze_encoder: bool,
        freeze_positions: bool,
        letters: Sequence[int] = (),
        hidden_loss: HiddenLoss | None = None,
        frozen: Sequence[str] = (),
        compiled: bool = False,
    ) -> None:
        """Join the models; `hidden_loss` compares their decoders layer by layer (distill.hidden).

        Raises:
            ValueError: their predictions cannot be compared, a hidden-state loss has no teacher, or
                nothing is left to train.
        """
        super().__init__()
        self.student = student
        self._teacher = (teacher,)  # in a tuple, so that torch does not register it
        self.loss = loss
        self.letters = torch.tensor(letters)
        self.hidden_loss = hidden_loss  # a module's own weights are trained along
        if hidden_loss is not None and teacher is None:
            raise ValueError("a loss on hidden states needs a teacher: set `teacher`")
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            student.model.encoder.requires_grad_(False)
        student.model.decoder.embed_positions.requires_grad_(not freeze_positions)
        student.model.encoder.embed_positions.requires_grad_(False)
        freeze(student, frozen)
        self._decoders = {
            id(model): torch.compile(model.model.decoder, dynamic=True) if compiled else None
            for model in (student, teacher)
            if model is not None
        }
        if teacher is not None:
            _check_comparable(student, teacher)
            teacher.requires_grad_(False).eval()
        self.share_encoder = (
            freeze_encoder and teacher is not None and _same_encoder(student, teacher)
        )

    @property
    def teacher(self) -> WhisperForConditionalGeneration | None:
        """The model to learn from; None where the loss has labels only."""
        return self._teacher[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the teacher along when the student is moved to a device."""
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> Self:
        """Switch dropout; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.student.model.encoder.eval()
        return self

    def forward(
        self,
        input_features: Tensor,
        decoder_input_ids: Tensor,
        labels: Tensor,
        spelling: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of a micro-batch.

        Features are (batch, mels, frames), decoder inputs and labels (batch, tokens), `spelling`
        (batch, letters) is needed by the CTC term only.
        `num_items_in_batch` counts the labels of the whole optimiser step (default: of this batch).
        """
        for model in filter(None, (self.student, self.teacher)):
            choose_attention(model, input_features)
        kept = label_positions(labels)
        tokens = count_labels(labels) if num_items_in_batch is None else num_items_in_batch
        with torch.set_grad_enabled(not self.freeze_encoder and torch.is_grad_enabled()):
            sound = encode(self.student.model.encoder, input_features)
        ours, student_ND = self._decode(self.student, sound, decoder_input_ids, kept)
        theirs, teacher_ND = HiddenStates(), None
        kl_weight = self.loss.weights[1]
        if self.teacher is not None and (kl_weight or self.hidden_loss is not None):
            with torch.no_grad():
                heard = sound
                if not self.share_encoder:
                    heard = encode(self.teacher.model.encoder, input_features)
                theirs, teacher_ND = self._decode(self.teacher, heard, decoder_input_ids, kept)
        parts = projected_loss(
            student_ND,
            self.student.proj_out,
            teacher_ND if kl_weight else None,
            self.teacher.proj_out if self.teacher is not None else None,
            labels[kept],
            tokens,
            self.loss.options,
        )
        loss = parts.pop("loss")
        if self.loss.ctc_weight:
            assert spelling is not None, "the CTC term needs the batch's spelling"
            letters_LD = self.student.model.decoder.embed_tokens(self.letters.to(sound.device))
            parts["ctc"] = spelling_loss(sound, letters_LD, spelling) / tokens
            loss = loss + self.loss.ctc_weight * parts["ctc"]
        if self.hidden_loss is not None:
            for name, term in self.hidden_loss(ours, theirs).items():
                parts[name] = term / tokens
                loss = loss + parts[name]
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def _decode(
        self,
        model: WhisperForConditionalGeneration,
        sound: Tensor,
        inputs: Tensor,
        kept: Tensor,
    ) -> tuple[HiddenStates, Tensor]:
        """Return the decoder's output (tokens, width) at the positions that have a label."""
        with capturing(model, kept, self.hidden_loss is not None) as states:
            decoder = self._decoders[id(model)]  # asking a compiled one whether it is true raises
            decoder = model.model.decoder if decoder is None else decoder
            hidden = decoder(input_ids=inputs, encoder_hidden_states=sound, use_cache=False)
        return states, hidden.last_hidden_state[kept]


def choose_attention(model: WhisperForConditionalGeneration, features: Tensor) -> None:
    """Use plain attention for short windows in bfloat16 on a CPU, torch's fused one elsewhere.

    The backward pass of the fused CPU kernel is slow in bfloat16. A step with it takes 1.96 times
    as long over windows of 2.5 s, as long over 10 s, and 0.69 times as long over 30 s (two AMX
    cores, 2026-11-20, `tests/benchmarks/bench_attention.py`).
    """
    in_bfloat16 = features.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    short = features.shape[-1] <= EAGER_FRAMES
    wanted = "eager" if in_bfloat16 and short else "sdpa"
    if model.config._attn_implementation != wanted:
        model.set_attn_implementation(wanted)


def _check_comparable(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    for name in ("vocab_size", "num_mel_bins"):
        ours, theirs = getattr(student.config, name), getattr(teacher.config, name)
        if ours != theirs:
            raise ValueError(
                f"the student's {name} is {ours}, its teacher's {theirs}: distillation compares "
                "their predictions token by token, so start the student from this teacher"
            )


def _same_encoder(
    student: WhisperForConditionalGeneration, teacher: WhisperForConditionalGeneration
) -> bool:
    ours, theirs = (m.model.encoder.state_dict() for m in (student, teacher))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


class NonFiniteLossError(ValueError):
    """A loss or a gradient is not a number, or infinite."""


class DistillationTrainer(Seq2SeqTrainer):
    """transformers' Trainer over a `BatchStream`.

    It saves the student, not the wrapper around it; commits its checkpoints; judges the student by
    its word error rate; and stops where that no longer falls, or where a loss is not finite.
    """

    def __init__(
        self,
        model: Distillation,
        arguments: Seq2SeqTrainingArguments,
        stream: BatchStream,
        processor: WhisperProcessor,
        config: TrainConfig,
        clips: Sequence[Clip] = (),
    ) -> None:
        """Take what is trained, on what; `clips` are those of the validation.

        A checkpoint continues the count of tokens that the last one had.
        """
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=stream,
            eval_dataset=list(clips) or None,  # pyright: ignore[reportArgumentType]
        )
        self.student, self.stream, self.processor = model.student, stream, processor
        self.step = model
        self.config, self.clips, self.tokens = config, list(clips), 0
        self.average: WeightAverage | None = None
        if config.average_decay is not None:
            self.average = WeightAverage(model.student, config.average_decay)
        self.model_accepts_loss_kwargs = True  # forward divides by num_items_in_batch
        self._parts: dict[str, Tensor] = {}
        self._parts_since = self._counted_step = 0
        self._ids: list[str] = []

    def begin_at(self, step: int) -> None:
        """Begin to count at the step that the training goes on from."""
        self._parts, self._parts_since, self._counted_step = {}, step, step

    def get_train_dataloader(self) -> DataLoader:
        """Return the stream's loader as it is: Accelerate would split it over ranks once more."""
        return DataLoader(
            self.stream,
            batch_size=None,
            num_workers=self.stream.config.num_workers,
            worker_init_fn=_leave_stopping_to_the_trainer,
            # its own, or beginning to read would move the generator that dropout draws from, and a
            # resumed training would not be the undisturbed one
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a micro-batch; its parts are kept for the log.

        Raises:
            NonFiniteLossError: it is not a finite number; the message names the clips.
        """
        ids = inputs.pop("ids", [])
        found: Any = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss, parts = found
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss of step {self.state.global_step + 1} is {loss.item()} on the clips "
                f"{', '.join(ids) or 'of this batch'}; the last checkpoint is not touched. Listen "
                "to them, or lower the learning rate"
            )
        for name, part in parts.items():
            if name != "loss":
                self._parts[name] = self._parts.get(name, 0) + part.detach()
        if self._counted_step <= self.state.global_step:  # the first micro-batch of a step
            self._ids = []
            self.tokens += int(num_items_in_batch or 0)
            self._counted_step = self.state.global_step + 1
        self._ids += ids
        return (loss, parts) if return_outputs else loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise NonFiniteLossError(
                f"the gradient of step {self.state.global_step + 1} is not finite on the clips "
                f"{', '.join(self._ids)}; the last checkpoint is not touched. Listen to them, or "
                "lower the learning rate"
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, over all processes, to what is logged."""
        steps = self.state.global_step - self._parts_since
        if "loss" in logs and steps > 0 and self._parts:
            names = sorted(self._parts)
            sums: Any = torch.stack([self._parts[name].float() for name in names]).to(
                self.args.device
            )
            if self.args.world_size > 1:
                sums = self.accelerator.reduce(sums, "sum")
            logs |= {name: value / steps for name, value in zip(names, sums.tolist(), strict=True)}
            self._parts, self._parts_since = {}, self.state.global_step
        super().log(logs, start_time)

    def evaluate(self, *_arguments: Any, **_options: Any) -> dict[str, float]:
        """Decode the validation clips with the student as it would be saved now."""
        assert self.config.validation is not None, "there is nothing to validate with"
        part = self.clips[self.args.process_index :: self.args.world_size]
        with self.as_saved():
            heard = hear(self.student, self.processor, part, self.config.validation.batch_size)
        rates = error_rates(shared_counts(heard, self.args.world_size))
        metrics = {f"eval_{name}": rate for name, rate in rates.items()}
        self.log(dict(metrics))
        for callback in self.callback_handler.callbacks:
            writer = getattr(callback, "tb_writer", None)
            if writer is not None:
                show_samples(writer, heard, part, self.config.validation, self.state.global_step)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def as_saved(self) -> contextlib.AbstractContextManager[None]:
        """Put the averaged weights, where there are any, into the student for a while."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.should_save:
            with self.as_saved(), replacing_folder(Path(self.config.output) / "best") as folder:
                self.student.save_pretrained(folder)
                save_joint(self.step, folder)
                self.processor.save_pretrained(folder)
        if out_of_patience(self.state.global_step, self.state.best_global_step, self.config):
            logger.info("no better validation for %s, stopping", self.config.validation)
            self.control.should_save = self.control.should_training_stop = True
        return is_best

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            revoke(folder)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            step, processes = self.state.global_step, self.args.world_size
            commit(folder, step, self.tokens, self.config, processes)
            remove_old(Path(self.config.output), self.config.keep_checkpoints)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        self.student.save_pretrained(folder)
        save_joint(self.step, folder)
        self.processor.save_pretrained(folder)
        torch.save(self.args, folder / "training_args.bin")
        if self.average is not None:
            self.average.save(folder)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        folder = Path(resume_from_checkpoint)
        saved = WhisperForConditionalGeneration.from_pretrained(folder)
        self.student.load_state_dict(saved.state_dict())
        load_joint(self.step, folder)
        if self.average is not None:
            self.average.load(folder)


def out_of_patience(step: int, best_step: int | None, config: TrainConfig) -> bool:
    """Tell whether there were as many validations without a better one as the run may have."""
    validation = config.validation
    if validation is None or validation.patience is None or not best_step:
        return False
    return step - best_step >= validation.patience * validation.every_steps


_leaving = torch.multiprocessing.Event()
"""Set when this process ends, before Python asks its loader processes to."""
atexit.register(_leaving.set)


def _leave_stopping_to_the_trainer(_worker: int) -> None:
    """Let a loader process ignore a request to end, which may go to the whole process group.

    A trainer that ends asks with the same signal, and would wait for ever for one that ignores it.
    """

    def end_with_the_trainer(_number: int, _frame: object) -> None:
        if _leaving.is_set():
            os._exit(0)

    signal.signal(signal.SIGTERM, end_with_the_trainer)


class Following(TrainerCallback):
    """Does what belongs to a step: average, stop where that was asked, log where it saves."""

    def __init__(self, trainer: DistillationTrainer, stop: StopRequest) -> None:
        self.trainer, self.stop = trainer, stop

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_options: Any
    ) -> None:
        """Count from here."""
        self.trainer.begin_at(state.global_step)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_options: Any
    ) -> None:
        """Update the average; set what the Trainer does before the next step."""
        if self.trainer.average is not None:
            self.trainer.average.update()
        if self._asked_to_stop():
            logger.info("asked to stop, saving step %d", state.global_step)
            control.should_save = control.should_training_stop = True
        if control.should_save:
            control.should_log = True  # or the mean of the next line would miss the steps before

    def _asked_to_stop(self) -> bool:
        if self.trainer.args.world_size == 1:
            return self.stop.requested
        asked = torch.tensor(float(self.stop.requested), device=self.trainer.args.device)
        total: Any = self.trainer.accelerator.reduce(asked, "sum")
        return bool(total.item())


def training_arguments(config: TrainConfig) -> Seq2SeqTrainingArguments:
    """Map our configuration onto the Trainer's."""
    validation = config.validation
    return Seq2SeqTrainingArguments(
        output_dir=str(Path(config.output) / "checkpoints"),
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type=config.schedule,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        average_tokens_across_devices=True,
        bf16=config.dtype == "bfloat16",
        use_cpu=config.device == "cpu",
        save_steps=config.save_steps,
        save_total_limit=None,  # removed after the commit, see `remove_old`
        eval_strategy="steps" if validation else "no",
        eval_steps=validation.every_steps if validation else None,
        metric_for_best_model="wer" if validation else None,
        greater_is_better=False if validation else None,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,  # `compute_loss` stops instead
        report_to=["tensorboard"],
        ignore_data_skip=True,  # the stream skips by itself, without decoding
        disable_tqdm=True,
        # Every trained weight takes part in every step, but for steps of grids not in use yet and
        # skipped layers.
        ddp_find_unused_parameters=config.decoder_layerdrop > 0
        or bool(config.quantization and config.quantization.learn_scale),
        remove_unused_columns=False,
        label_names=["labels"],
        seed=config.seed,
        data_seed=config.seed,
        accelerator_config={"dispatch_batches": False, "split_batches": False},
    )
