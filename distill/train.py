"""`whisper-distill init` and `train`: shards in, student out. The whole flow, one verb a line."""

import contextlib
import dataclasses
import json
import logging
import shutil
import time
from pathlib import Path

import transformers
import yaml
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from distill.alignment_heads import choose_alignment_heads, clips_to_align
from distill.averaging import WeightAverage, mean_weights
from distill.checkpoints import (
    Checkpoint,
    last_checkpoint,
    newest_checkpoint,
    whole_checkpoints,
)
from distill.config import InitConfig, TrainConfig
from distill.data import BatchStream
from distill.distillation import Distillation, Encode
from distill.encoder_memory import EncoderMemory
from distill.joint import learned_steps_in, quantise_in_training
from distill.layer_matching import LayerMatching
from distill.layerdrop import drop_inner_layers
from distill.processor import save_processor
from distill.progress import ShowProgress
from distill.quantization import packed
from distill.quantization.config import QuantizationConfig
from distill.quantization.schedule import write_quantised
from distill.run_card import (
    RunCard,
    describe_data,
    describe_hardware,
    last_figures,
    library_versions,
    write_run_card,
)
from distill.stopping import InterruptedTrainingError, StopRequest
from distill.student import (
    encode,
    is_multilingual,
    keep_generation_settings,
    load_model,
    load_processor,
    make_student,
    num_parameters,
)
from distill.targets import letter_tokens
from distill.trainer import DistillationTrainer, Following, out_of_patience, training_arguments
from distill.validation import validation_clips

logger = logging.getLogger(__name__)


def init(config: InitConfig) -> Path:
    """Write a student made of its teacher's layers; return its folder.

    Raises:
        ValueError: there is no such teacher, or it has fewer layers than asked for.
    """
    teacher = load_model(config.teacher)
    student = make_student(
        teacher,
        config.layers or config.decoder_layers or 2,
        config.encoder_layer_list or config.encoder_layers,
    )
    logger.info(
        "teacher %.2f M parameters, student %.2f M",
        num_parameters(teacher) / 1e6,
        num_parameters(student) / 1e6,
    )
    keep_generation_settings(student)
    processor = load_processor(config.teacher)
    return save(student, processor, Path(config.output))


def train(config: TrainConfig, memory: EncoderMemory | None = None) -> Path:
    """Train a student and return its folder, `<output>/student`.

    Trainings that follow each other may share a memory; without one it is the configuration's.

    Raises:
        FileNotFoundError: a shard folder is not a finished dataset.
        ValueError: nothing to train on, no such student or teacher, or they do not fit together; a
            checkpoint of another configuration; a loss that is not finite.
        InterruptedTrainingError: SIGTERM came; a checkpoint of the last step is saved.
    """
    output = Path(config.output)
    processor = load_processor(config.student)
    arguments = training_arguments(config)
    rank, num_ranks = arguments.process_index, arguments.world_size
    checkpoint = last_checkpoint(config, num_ranks)
    if checkpoint and is_done(checkpoint, config):
        logger.info("%s has had all of its steps", checkpoint.folder)
        return write_student(config, processor) if rank == 0 else output / "student"
    if checkpoint:
        logger.info("going on from %s", checkpoint.folder)

    transformers.set_seed(config.seed)
    steps_done = checkpoint.step if checkpoint else 0
    batches_done = steps_done * config.gradient_accumulation_steps
    stream = BatchStream(config.data, processor, config.seed, rank, num_ranks, batches_done)
    clips = validation_clips(config.validation) if config.validation else []
    if memory is None and config.encoder_memory_gib:
        memory = EncoderMemory(round(config.encoder_memory_gib * 2**30))
    step = make_step(config, processor, memory or encode)
    joint = quantise_in_training(step, config.quantization)
    stream.multilingual = is_multilingual(step.student)
    trainer = DistillationTrainer(step, arguments, stream, processor, config, clips)
    trainer.tokens = checkpoint.tokens if checkpoint else 0
    if rank == 0:
        if not checkpoint:
            begin_anew(output)
        write_config(config, output / "train.yaml")
    started = time.monotonic()
    with StopRequest() as stop:
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(Following(trainer, stop))
        trainer.add_callback(progress := ShowProgress())
        trainer.add_callback(joint)
        with contextlib.closing(progress):
            trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    ended = how_it_ended(trainer, stop)
    if rank == 0:
        joint.write_alignment(output / "alignment.json")
        write_run_card(make_card(trainer, ended, time.monotonic() - started), output)
    if ended == "stopped":
        raise InterruptedTrainingError(
            f"stopped after step {trainer.state.global_step} of {config.max_steps}; it is saved, "
            "and the same command goes on from there"
        )
    trainer.accelerator.wait_for_everyone()
    return write_student(config, processor) if rank == 0 else output / "student"


def make_step(
    config: TrainConfig, processor: WhisperProcessor, encode: Encode = encode
) -> Distillation:
    """Load student and teacher and join them."""
    student = load_model(config.student)
    if config.gradient_checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False})
    drop_inner_layers(student.model.decoder, config.decoder_layerdrop)
    teacher = load_model(config.teacher) if config.teacher and needs_teacher(config) else None
    hidden_loss = None
    if config.hidden and teacher is not None:
        hidden_loss = LayerMatching(config.hidden, student, teacher)
    return Distillation(
        student,
        teacher,
        config.loss,
        config.freeze_encoder,
        config.freeze_positions,
        letter_tokens(processor.tokenizer) if config.loss.ctc_weight else [],
        hidden_loss=hidden_loss,
        frozen=config.frozen,
        compiled=config.compile,
        encode=encode,
    )


def is_done(checkpoint: Checkpoint, config: TrainConfig) -> bool:
    """Tell whether a checkpoint is the end of its training."""
    state = json.loads((checkpoint.folder / "trainer_state.json").read_text())
    best_step = state.get("best_global_step")
    return checkpoint.step >= config.max_steps or out_of_patience(
        checkpoint.step, best_step, config
    )


def how_it_ended(trainer: DistillationTrainer, stop: StopRequest) -> str:
    """Return `finished`, `patience` or `stopped`."""
    state = trainer.state
    if state.global_step >= state.max_steps:
        return "finished"
    if out_of_patience(state.global_step, state.best_global_step, trainer.config):
        return "patience"
    assert stop.requested, "a training ends for a reason"
    return "stopped"


def begin_anew(output: Path) -> None:
    """Remove what an earlier training left, so that nothing of it is taken for this one's."""
    for name in ("checkpoints", "best"):
        shutil.rmtree(output / name, ignore_errors=True)


def write_student(config: TrainConfig, processor: WhisperProcessor) -> Path:
    """Write what the training arrived at: the best validated student, the average, or the last."""
    output = Path(config.output)
    best = output / "best"
    checkpoint = newest_checkpoint(output)
    assert checkpoint is not None, "a training ends with a checkpoint"
    from_best = config.validation is not None and (best / "config.json").is_file()
    source = best if from_best else checkpoint.folder
    student = load_model(str(source))
    if config.average_last is not None:
        last = whole_checkpoints(output)[-config.average_last :]
        student.load_state_dict(mean_weights(load_model(str(c.folder)).state_dict() for c in last))
        logger.info("the student is the mean of steps %s", [c.step for c in last])
    applied = contextlib.nullcontext()
    if config.average_decay is not None and not from_best:
        average = WeightAverage(student, config.average_decay)
        average.load(checkpoint.folder)
        applied = average.applied()
    with applied:
        # of the layers as they are now, or word times would be those of the teacher's heads
        clips = clips_to_align(config.data, config.alignment_clips)
        heads = choose_alignment_heads(student, processor, clips)
        if heads:
            vars(student.generation_config)["alignment_heads"] = heads
        return save(student, processor, output / "student", config.quantization, source)


def make_card(trainer: DistillationTrainer, ended: str, seconds: float) -> RunCard:
    """Sum up a training."""
    state, config = trainer.state, trainer.config
    validations = [
        {k: v for k, v in line.items() if k == "step" or k.startswith("eval_wer")}
        for line in state.log_history
        if "eval_wer" in line
    ]
    weights = list(trainer.student.parameters())
    return RunCard(
        ended=ended,
        steps=state.global_step,
        tokens=trainer.tokens,
        seconds=round(seconds, 1),
        student_parameters=num_parameters(trainer.student),
        trained_parameters=sum(w.numel() for w in weights if w.requires_grad),
        best_step=state.best_global_step if validations else None,
        best_wer=state.best_metric if validations else None,
        last=last_figures(state.log_history),
        validations=validations,
        data=describe_data(config),
        hardware=describe_hardware(trainer.args.world_size),
        versions=library_versions(),
        config=dataclasses.asdict(config),
    )


def needs_teacher(config: TrainConfig) -> bool:
    """Tell whether the loss has a KL term, or one of hidden states."""
    wanted = config.loss.weights[1] > 0 or config.hidden is not None
    return config.teacher is not None and wanted


def write_config(config: TrainConfig, path: Path) -> None:
    """Write the configuration as it was resolved; `train --config` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))


def save(
    student: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    folder: Path,
    quantization: QuantizationConfig | None = None,
    checkpoint: Path | None = None,
) -> Path:
    """Write the student as `load_model` reads it; on its grids if it was trained on them.

    `checkpoint` is where a quantised student was loaded from: it knows the steps that were learned.
    """
    stale = folder / ("model.safetensors" if quantization else packed.FILE_NAME)
    stale.unlink(missing_ok=True)  # of an earlier training; a reader could not tell which counts
    if quantization:
        steps = learned_steps_in(checkpoint) if checkpoint else {}
        write_quantised(student, quantization, folder, steps)
    else:
        student.save_pretrained(folder)
    save_processor(processor, folder)
    logger.info("student written to %s", folder)
    return folder
