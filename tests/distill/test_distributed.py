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

# trains on rows of one batch: all of them, or each of two processes its part
TRAINING = """
import itertools, sys, torch
from pathlib import Path
from distill.config import TrainConfig
from distill.data_config import DataConfig
from distill.data import BatchStream
from distill.student import load_model, load_processor, make_student
from distill.distillation import Distillation
from distill.trainer import DistillationTrainer, Following, training_arguments
from distill.stopping import StopRequest
from tests.distill.material import make_training_batch

dataset, model, output, *cuts = sys.argv[1:]
torch.set_num_threads(1)
config = TrainConfig(
    output=output, data=DataConfig(shards=[dataset], num_workers=0), student=model, teacher=model,
    max_steps=3, save_steps=3, logging_steps=1, warmup_steps=0, learning_rate=1e-3, device="cpu",
    schedule="constant_with_warmup", average_decay=0.5,
)
arguments = training_arguments(config)
rank = arguments.process_index
first, last = int(cuts[rank]), int(cuts[rank + 1])

class Given(BatchStream):
    def __iter__(self):
        for seed in itertools.count():
            yield {k: v[first:last] for k, v in make_training_batch(seed=seed).items()}

teacher = load_model(model)
processor = load_processor(model)
step = Distillation(make_student(teacher), teacher, config.loss, True, True)
trainer = DistillationTrainer(step, arguments, Given(config.data, processor, 0), processor, config)
trainer.add_callback(Following(trainer, StopRequest()))
trainer.train()
if rank == 0:
    import json
    Path(output, "end.json").write_text(json.dumps([trainer.state.log_history, trainer.tokens]))
"""


def train_processes(arguments: list[str], num_processes: int) -> None:
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
    history, tokens = json.loads((folder / "end.json").read_text())
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
