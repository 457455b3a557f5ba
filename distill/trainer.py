"""The Trainer around the distillation step: optimiser, schedule, checkpoints, resume, devices."""

import atexit
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
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
from distill.config import TrainConfig
from distill.data import BatchStream
from distill.distillation import Distillation
from distill.joint import load_joint, save_joint
from distill.processor import save_processor
from distill.progress import show_samples
from distill.sharding import check_sharding, is_sharded, load_whole_state, whole, whole_state
from distill.stopping import StopRequest
from distill.validation import Clip, error_rates, hear, shared_counts

logger = logging.getLogger(__name__)


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
        if self.is_fsdp_enabled:
            check_sharding(config)
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
        with self.as_saved(), whole(self.step):
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
        weights = self._weights() if is_best else None
        if is_best and self.args.should_save:
            with self.as_saved(), replacing_folder(Path(self.config.output) / "best") as folder:
                self.student.save_pretrained(folder, state_dict=weights)
                save_joint(self.step, folder)
                save_processor(self.processor, folder)
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

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the student; weights that are spread over processes are put together first."""
        if not is_sharded(self.step):
            super().save_model(output_dir, _internal_call)
            return
        weights = self._weights()
        if self.args.should_save:
            self._save(output_dir, weights)

    def _weights(self) -> dict[str, Tensor] | None:
        """Return the student's whole weights; None where it has them itself."""
        if not is_sharded(self.step):
            return None
        state = whole_state(self.step)
        found = {n.removeprefix("student."): w for n, w in state.items()}
        if self.student.config.tie_word_embeddings:
            found.pop("proj_out.weight", None)  # one weight, put together twice
        return found

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        self.student.save_pretrained(folder, state_dict=state_dict)
        save_joint(self.step, folder)
        save_processor(self.processor, folder)
        torch.save(self.args, folder / "training_args.bin")
        if self.average is not None:
            self.average.save(folder)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        folder = Path(resume_from_checkpoint)
        saved = WhisperForConditionalGeneration.from_pretrained(folder).state_dict()
        if is_sharded(self.step):
            load_whole_state(self.step, {f"student.{n}": weight for n, weight in saved.items()})
            return
        self.student.load_state_dict(saved)
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
    """Map our configuration onto the Trainer's; a process trains on one device."""
    validation = config.validation
    arguments = Seq2SeqTrainingArguments(
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
        # Every trained weight takes part in every step, but for steps of grids not in use yet.
        ddp_find_unused_parameters=bool(config.quantization and config.quantization.learn_scale),
        remove_unused_columns=False,
        label_names=["labels"],
        seed=config.seed,
        data_seed=config.seed,
        accelerator_config={"dispatch_batches": False, "split_batches": False},
    )
    if arguments.n_gpu > 1:  # the Trainer would copy the student to all, and leave the teacher
        logger.warning(
            "training on one of %d GPUs; for all of them: torchrun --nproc_per_node %d -m distill "
            "train ...",
            arguments.n_gpu,
            arguments.n_gpu,
        )
        arguments._n_gpu = 1
    return arguments
