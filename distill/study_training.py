"""The students of a study: each is trained once, and where an interrupted study stood it goes on.

Students of one seed that learn from the same clips are given the same batches in the same order;
what a frozen encoder hears is kept from one student to the next.
"""

import dataclasses
import logging
import shutil
from pathlib import Path

import yaml

from distill.config import InitConfig, TrainConfig
from distill.encoder_memory import EncoderMemory
from distill.quantization.config import QuantizeConfig
from distill.quantize import quantize
from distill.study_arms import Arm
from distill.study_config import StudyConfig
from distill.study_judging import weights_sha256
from distill.train import init, train

logger = logging.getLogger(__name__)


def train_all(arms: list[Arm], config: StudyConfig) -> None:
    """Make every student that is not there; those of a seed are given the same batches.

    Those that listen with the same encoder share what they heard, whichever labels and share of
    the clips they are given.
    """
    memory = EncoderMemory()
    for seed in config.seeds:
        if memory.is_full:  # perhaps with windows that another seed will not see
            memory = EncoderMemory()
        for arm in arms:
            if arm.trained or seed == config.seeds[0]:
                logger.info("%s, seed %d", arm.name, seed)
                make_student_of(arm, config, seed, memory)


def make_student_of(
    arm: Arm, config: StudyConfig, seed: int, memory: EncoderMemory | None = None
) -> Path:
    """Return the folder of an arm's student; what is there already is not made again."""
    start = Path(arm.config.student)
    if config.student is None and not (start / "config.json").is_file():
        init(InitConfig(teacher=config.teacher, output=str(start), decoder_layers=arm.layers))
    if not arm.trained:
        return start
    training = arm.training(seed)
    student = Path(training.output) / "student"
    if not is_trained(training):
        student = train(training, memory)
        shutil.rmtree(Path(training.output) / "checkpoints")  # many students, much room
    if arm.rounded is None:
        return student
    rounded = Path(training.output) / arm.name
    record, made_of = rounded / "made_of.sha256", weights_sha256(str(student))
    if not record.is_file() or record.read_text() != made_of:
        quantize(QuantizeConfig(model=str(student), output=str(rounded), preset=arm.rounded))
        record.write_text(made_of)
    return rounded


def is_trained(config: TrainConfig) -> bool:
    """Tell whether a training has ended, and was this one; its checkpoints are gone then."""
    output = Path(config.output)
    known = output / "train.yaml"
    if not known.is_file() or (output / "checkpoints").exists():
        return False
    now = yaml.safe_load(yaml.safe_dump(dataclasses.asdict(config)))
    done = (output / "student" / "processor_config.json").is_file()  # what is written last
    return done and yaml.safe_load(known.read_text()) == now
