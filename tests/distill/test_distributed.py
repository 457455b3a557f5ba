import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill.config import TrainConfig
from distill.data_config import DataConfig
from distill.hidden_config import HiddenConfig
from distill.quantization.config import QuantizationConfig
from distill.sharding import check_sharding

# trains on rows of one batch: all of them, or each of two processes its part
TRAINING = """
import itertools, json, os, sys, torch
from pathlib import Path
from accelerate import FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from distill.checkpoints import last_checkpoint
from distill.config import TrainConfig
from distill.data_config import DataConfig
from distill.data import BatchStream
from distill.sharding import is_sharded, whole
from distill.student import load_model, load_processor, make_student
from distill.distillation import Distillation
from distill.trainer import DistillationTrainer, Following, training_arguments
from distill.stopping import StopRequest
from tests.distill.material import make_training_batch

dataset, model, output, *cuts = sys.argv[1:]
torch.set_num_threads(1)
config = TrainConfig(
    output=output, data=DataConfig(shards=[dataset], num_workers=0), student=model, teacher=model,
    max_steps=int(os.environ.get("STEPS", "3")), save_steps=1, logging_steps=1, warmup_steps=0,
    learning_rate=1e-3, device="cpu", schedule="constant_with_warmup",
    average_decay=None if "FSDP" in os.environ else 0.5,
)
arguments = training_arguments(config)
before = last_checkpoint(config, arguments.world_size)
rank = arguments.process_index
first, last = int(cuts[rank]), int(cuts[rank + 1])

class Given(BatchStream):
    def __iter__(self):
        for seed in itertools.count(before.step if before else 0):
            yield {k: v[first:last] for k, v in make_training_batch(seed=seed).items()}

teacher = load_model(model)
processor = load_processor(model)
step = Distillation(make_student(teacher), teacher, config.loss, True, True)
trainer = DistillationTrainer(step, arguments, Given(config.data, processor, 0), processor, config)
if "FSDP" in os.environ and arguments.world_size > 1:
    # by hand, because accelerate takes it up with accelerators only
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", reshard_after_forward=True,
        transformer_cls_names_to_wrap=["WhisperDecoderLayer", "WhisperEncoderLayer"],
        state_dict_type="FULL_STATE_DICT", cpu_ram_efficient_loading=False,
    )
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    trainer.accelerator.state.distributed_type = DistributedType.FSDP
    trainer.accelerator.state.fsdp_plugin = plugin
    trainer.is_fsdp_enabled = True
trainer.tokens = before.tokens if before else 0
trainer.add_callback(Following(trainer, StopRequest()))
trainer.train(resume_from_checkpoint=str(before.folder) if before else None)
sound = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0))
with whole(step):
    text = step.student.eval().generate(sound, language="en", task="transcribe", max_new_tokens=6)
if rank == 0:
    sharded = is_sharded(step)
    end = [trainer.state.log_history, trainer.tokens, text.tolist(), sharded]
    Path(output, "end.json").write_text(json.dumps(end))
"""


def train_processes(arguments: list[str], num_processes: int, **environment: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        **os.environ,
        "PYTHONPATH": str(Path.cwd()),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        **environment,
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            if num_processes > 1
            else {k: v for k, v in shared.items() if k != "WORLD_SIZE"},
        )
        for rank in range(num_processes)
    ]
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * num_processes, "\n".join(errors)


def ending(folder: Path) -> tuple[list[dict[str, Any]], int, dict[str, torch.Tensor]]:
    history, tokens, *_ = json.loads((folder / "end.json").read_text())
    weights = load_file(folder / "checkpoints" / "checkpoint-3" / "model.safetensors")
    return [line for line in history if "loss" in line], tokens, weights


def test_two_processes_equal_one_with_twice_the_batch_step_by_step(
    dataset: Path, teacher_folder: Path, tmp_path: Path
):
    """The parts have 1 and 2 rows of 4, 6 and 1 tokens, so a mean of means would differ."""
    inputs = [str(dataset), str(teacher_folder)]
    train_processes([*inputs, str(tmp_path / "one"), "0", "3"], 1)
    train_processes([*inputs, str(tmp_path / "two"), "0", "1", "3"], 2)
    (one, one_tokens, expected), (two, two_tokens, found) = (
        ending(tmp_path / name) for name in ("one", "two")
    )
    assert one_tokens == two_tokens == 33
    for name in ("loss", "ce", "kl", "grad_norm"):
        values = [[line[name] for line in lines] for lines in (two, one)]
        assert values[0] == pytest.approx(values[1], rel=1e-5), name
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    record = json.loads((tmp_path / "two/checkpoints/checkpoint-3/checkpoint.json").read_text())
    assert record["num_processes"] == 2
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= record["files"].keys()


def test_weights_spread_over_processes_learn_and_go_on_as_whole_ones(
    dataset: Path, teacher_folder: Path, tmp_path: Path
):
    """FSDP 2 over gloo: step by step, in the checkpoint, after a resume and in what is heard."""
    inputs = [str(dataset), str(teacher_folder)]
    train_processes([*inputs, str(tmp_path / "one"), "0", "3"], 1, FSDP="1")
    two = [*inputs, str(tmp_path / "two"), "0", "1", "3"]
    train_processes(two, 2, FSDP="1", STEPS="2")
    train_processes(two, 2, FSDP="1")
    (one, one_tokens, expected), (resumed, tokens, found) = (
        ending(tmp_path / name) for name in ("one", "two")
    )
    assert tokens == one_tokens == 33
    assert [line["step"] for line in resumed] == [1, 2, 3]
    for name in ("loss", "ce", "kl", "grad_norm"):
        values = [[line[name] for line in lines] for lines in (resumed, one)]
        assert values[0] == pytest.approx(values[1], rel=1e-5), name
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    heard = [json.loads((tmp_path / name / "end.json").read_text()) for name in ("one", "two")]
    assert heard[0][2] == heard[1][2]
    assert (heard[0][3], heard[1][3]) == (False, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"average_decay": 0.9},
        {"hidden": HiddenConfig()},
        {"quantization": QuantizationConfig()},
        {"encoder_memory_gib": 1.0},
    ],
)
def test_what_reads_weights_between_steps_is_refused_where_they_are_spread(fields: dict[str, Any]):
    config = TrainConfig(output="x", data=DataConfig(shards=["x"]), student="x", **fields)
    with pytest.raises(ValueError, match=f"{next(iter(fields))} needs the whole student"):
        check_sharding(config)
