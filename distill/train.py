"""`whisper-distill init` and `train`: shards in, student out. The whole flow, one verb a line."""

import dataclasses
import json
import logging
from pathlib import Path

import transformers
import yaml
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from distill.config import InitConfig, TrainConfig
from distill.data import BatchStream
from distill.joint import learned_steps_in, quantise_in_training
from distill.layer_matching import LayerMatching
from distill.quantization import packed
from distill.quantization.schedule import write_quantised
from distill.student import (
    keep_generation_settings,
    load_model,
    load_processor,
    make_student,
    num_parameters,
)
from distill.targets import letter_tokens
from distill.trainer import Distillation, DistillationTrainer, training_arguments

logger = logging.getLogger(__name__)


def init(config: InitConfig) -> Path:
    """Write a student made of its teacher's layers; return its folder.

    Raises:
        ValueError: there is no such teacher, or it has fewer layers than asked for.
    """
    teacher = load_model(config.teacher)
    student = make_student(teacher, config.decoder_layers, config.encoder_layers)
    logger.info(
        "teacher %.2f M parameters, student %.2f M",
        num_parameters(teacher) / 1e6,
        num_parameters(student) / 1e6,
    )
    keep_generation_settings(student)
    processor = load_processor(config.teacher)
    return save(student, processor, Path(config.output))


def train(config: TrainConfig) -> Path:
    """Train a student and return its folder, `<output>/student`.

    Raises:
        FileNotFoundError: a shard folder is not a finished dataset.
        ValueError: nothing to train on, no such student or teacher, or they do not fit together.
    """
    output = Path(config.output)
    processor = load_processor(config.student)
    checkpoint, steps_done = last_checkpoint(config)
    if checkpoint and steps_done >= config.max_steps:
        logger.info("%s has had all of its %d steps", checkpoint, config.max_steps)
        trained = load_model(str(checkpoint))
        if config.quantization:
            steps = learned_steps_in(checkpoint)
            write_quantised(trained, config.quantization, output / "student", steps)
        return save(trained, processor, output / "student", config.quantization is not None)

    transformers.set_seed(config.seed)
    arguments = training_arguments(config)
    rank, num_ranks = arguments.process_index, arguments.world_size
    batches_done = steps_done * config.gradient_accumulation_steps
    stream = BatchStream(config.data, processor, config.seed, rank, num_ranks, batches_done)
    student = load_model(config.student)
    teacher = load_model(config.teacher) if config.teacher and needs_teacher(config) else None
    step = Distillation(
        student,
        teacher,
        config.loss,
        config.freeze_encoder,
        config.freeze_positions,
        letter_tokens(processor.tokenizer) if config.loss.ctc_weight else [],
        LayerMatching(config.hidden, student, teacher) if config.hidden and teacher else None,
    )
    joint = quantise_in_training(step, config.quantization)
    trainer = DistillationTrainer(step, arguments, stream, processor)
    trainer.add_callback(joint)
    if rank == 0:
        write_config(config, output / "train.yaml")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if rank == 0:
        if config.quantization:
            steps = joint.learned_steps()
            write_quantised(student, config.quantization, output / "student", steps)
        joint.write_alignment(output / "alignment.json")
        save(student, processor, output / "student", config.quantization is not None)
    return output / "student"


def needs_teacher(config: TrainConfig) -> bool:
    """Tell whether the loss has a KL term, or one of hidden states."""
    wanted = config.loss.weights[1] > 0 or config.hidden is not None
    return config.teacher is not None and wanted


def last_checkpoint(config: TrainConfig) -> tuple[Path | None, int]:
    """Return the newest whole checkpoint of an earlier run and its step, or None and 0 to begin."""
    found: dict[int, Path] = {}
    for state in Path(config.output).glob("checkpoints/*/trainer_state.json"):  # written last
        found[json.loads(state.read_text())["global_step"]] = state.parent
    if not found or not config.resume:
        return None, 0
    steps_done = max(found)
    logger.info("going on from %s", found[steps_done])
    return found[steps_done], steps_done


def write_config(config: TrainConfig, path: Path) -> None:
    """Write the configuration as it was resolved; `train --config` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))


def save(
    student: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    folder: Path,
    quantised: bool = False,
) -> Path:
    """Write the student as `from_pretrained` reads it; only what else it needs if `quantised`."""
    stale = folder / ("model.safetensors" if quantised else packed.FILE_NAME)
    stale.unlink(missing_ok=True)  # of an earlier training; a reader could not tell which counts
    if not quantised:
        student.save_pretrained(folder)
    processor.save_pretrained(folder)
    logger.info("student written to %s", folder)
    return folder
