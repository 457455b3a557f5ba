"""A whole model on its grids: seen, trained, saved, loaded again."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration

from distill.quantization import inspect, load, save, size_report
from distill.quantization.fake import (
    activate,
    learned_steps,
    plan,
    prepare,
    quantisation_errors,
    quantise,
    quantised_layers,
    restore,
)
from distill.quantization.grid import dequantize, fake_quantize, round_trip
from distill.quantization.packed import FILE_NAME, metadata_of, read
from distill.quantization.presets import PRESETS, Grid, Rule, rules_of
from distill.student import load_model, make_student

Whisper = WhisperForConditionalGeneration
presets = pytest.mark.parametrize("preset", PRESETS)


def inputs(model: Whisper, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mels = model.config.num_mel_bins
    return {
        "input_features": torch.randn(1, mels, 3000, generator=generator),
        "decoder_input_ids": torch.randint(600, (1, 7), generator=generator),
    }


@torch.no_grad()
def logits(model: Whisper) -> torch.Tensor:
    return model.eval()(**inputs(model)).logits


@pytest.fixture(scope="module")
def packed_folder(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = load_model(str(teacher_folder))
    folder = tmp_path_factory.mktemp("packed")
    save(model, quantise(model, rules_of("w4")), folder)
    return folder


@presets
def test_the_file_gives_back_the_weights_and_logits_of_the_training_bit_for_bit(
    teacher: Whisper, preset: str, tmp_path: Path
):
    grids = quantise(teacher, rules_of(preset))
    expected = logits(teacher)
    save(teacher, grids, tmp_path)
    packed, loaded = read(tmp_path), load(tmp_path)
    for name, grid in grids.items():
        seen = fake_quantize(teacher.get_parameter(f"{name}.weight"), grid)
        stored = dequantize(packed.integers(name), packed.scale(name), grid)
        assert torch.equal(stored, seen)
        assert torch.equal(loaded.get_parameter(f"{name}.weight"), stored)
        assert packed.integers(name).abs().max() == grid.largest
    assert torch.equal(logits(loaded), expected)


@pytest.mark.parametrize("mutation", ["no rounding", "scale not rounded to its storage"])
def test_the_round_trip_test_would_notice_a_wrong_training(
    teacher: Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutation: str
):
    def wrong(weight: torch.Tensor, grid: Grid) -> torch.Tensor:
        if mutation == "no rounding":
            return weight
        return round_trip(weight, grid, (weight.abs().amax(-1, keepdim=True) / grid.largest))

    monkeypatch.setattr("distill.quantization.fake.fake_quantize", wrong)
    grids = quantise(teacher, rules_of("w8"))
    seen = logits(teacher)
    save(teacher, grids, tmp_path)
    assert not torch.equal(logits(load(tmp_path)), seen)


def test_learned_steps_survive_the_file_bit_for_bit(teacher: Whisper, tmp_path: Path):
    grids = plan(teacher, rules_of("w4"))
    steps = learned_steps(teacher, grids)
    for step in steps.values():
        step.data *= 1.3
    prepare(teacher, grids, steps)
    expected = {n: layer.seen_weight().detach() for n, layer in quantised_layers(teacher)}
    save(teacher, grids, tmp_path, steps)
    weights = read(tmp_path).weights()
    assert len(expected) == len(steps) > 20
    assert all(torch.equal(weights[f"{name}.weight"], w) for name, w in expected.items())


def test_embedding_and_output_head_stay_one_weight_on_one_grid(teacher: Whisper, tmp_path: Path):
    grids = quantise(teacher, rules_of("paper"))
    head, embedding = teacher.proj_out, teacher.model.decoder.embed_tokens
    assert "proj_out" not in grids
    assert head.weight is embedding.weight
    assert torch.equal(head.seen_weight(), embedding.seen_weight())  # pyright: ignore
    assert not torch.equal(head.seen_weight(), head.weight)  # pyright: ignore
    save(teacher, grids, tmp_path)
    assert not any(name.startswith("proj_out") for name in load_file(tmp_path / FILE_NAME))
    loaded = load(tmp_path)
    assert loaded.proj_out.weight is loaded.model.decoder.embed_tokens.weight


def test_every_planned_weight_is_really_seen_on_its_grid_with_its_bits(teacher: Whisper):
    """Feed-forward layers of another width than attention, and the embedding, too."""
    rules = (
        Rule(layers="*.decoder.layers.*.fc?", grid=Grid(bits=3)),
        Rule(layers="*.decoder.layers.*_attn.*", grid=Grid(bits=4)),
        Rule(layers="*.embed_tokens", grid=Grid(bits=2)),
    )
    quantise(teacher, rules)
    for name, layer in quantised_layers(teacher, tied=True):
        bits = 3 if ".fc" in name else 4 if "_attn" in name else 2
        levels = max(len(row.unique()) for row in layer.seen_weight())
        assert levels <= 2**bits - 1, name
    assert len(list(quantised_layers(teacher))) == 4 * 10 + 1


def test_names_of_weights_do_not_change_and_restore_gives_the_exact_ones_back(teacher: Whisper):
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    expected = logits(teacher)
    prepare(teacher, plan(teacher, rules_of("w8")))
    assert teacher.state_dict().keys() == before.keys()
    assert not torch.equal(logits(teacher), expected)
    restore(teacher)
    assert all(torch.equal(teacher.state_dict()[n], value) for n, value in before.items())
    assert torch.equal(logits(teacher), expected)
    assert type(teacher.proj_out) is torch.nn.Linear


def test_a_copy_of_a_quantised_model_is_quantised_by_itself(teacher: Whisper):
    quantise(teacher, rules_of("w8"))
    twin = copy.deepcopy(teacher)
    with torch.no_grad():
        twin.get_parameter("model.decoder.layers.0.fc1.weight").mul_(3)
    assert not torch.equal(logits(twin), logits(teacher))


def test_layers_can_be_quantised_one_after_another(teacher: Whisper):
    exact = logits(teacher)
    prepare(teacher, plan(teacher, rules_of("paper")))
    all_of_them = logits(teacher)
    activate(teacher, [])
    assert torch.equal(logits(teacher), exact)
    activate(teacher, ["model.decoder.layers.1", "model.decoder.embed_tokens"])
    active = {n for n, layer in quantised_layers(teacher, tied=True) if layer.active}
    assert {n.rpartition(".layers.")[2][0] for n in active if ".layers." in n} == {"1"}
    assert {"proj_out", "model.decoder.embed_tokens"} <= active
    activate(teacher, None)
    assert torch.equal(logits(teacher), all_of_them)


def test_fewer_bits_lose_more(teacher: Whisper):
    errors = [
        quantisation_errors(teacher, plan(teacher, rules_of(preset))) for preset in ("w8", "w4")
    ]
    name = "model.decoder.layers.0.fc1"
    assert 0 < errors[0][name] < 0.01 < errors[1][name] < 0.2


def test_a_trained_weight_moves_though_it_is_only_seen_on_the_grid(teacher: Whisper):
    student = make_student(teacher, 2)
    quantise(student, rules_of("w4"))
    before = {n: p.clone() for n, p in student.named_parameters()}
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    student(**inputs(student), labels=torch.randint(600, (1, 7))).loss.backward()
    optimizer.step()
    moved = {n for n, p in student.named_parameters() if not torch.equal(p, before[n])}
    assert {"model.decoder.layers.1.fc2.weight", "model.decoder.embed_tokens.weight"} <= moved


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            (
                Rule(layers="model.decoder.*", grid=Grid()),
                Rule(layers="*.fc1", grid=Grid(bits=4)),
            ),
            r"model\.decoder\.layers\.0\.fc1 is named twice, by model\.decoder\.\* and \*\.fc1",
        ),
        ((Rule(layers="model.decodr.*", grid=Grid()),), "is called model.decodr.*"),
        ((Rule(layers="*.fc1", grid=Grid(group=48)),), "32 columns, which groups of 48"),
    ],
)
def test_rules_that_do_not_fit_the_model_are_refused(teacher: Whisper, rules: Any, message: str):
    with pytest.raises(ValueError, match=message):
        plan(teacher, rules)


def test_quantising_twice_is_refused(teacher: Whisper):
    grids = quantise(teacher, rules_of("w8"))
    with pytest.raises(ValueError, match="quantised already"):
        quantise(teacher, rules_of("w8"))
    with pytest.raises(ValueError, match="with other grids than it is saved with"):
        save(teacher, plan(teacher, rules_of("w4")), "never-written")
    assert grids
    assert not Path("never-written").exists()


@pytest.mark.parametrize(
    ("value", "message"), [(float("nan"), "not finite"), (1e6, "float16 cannot hold")]
)
@pytest.mark.parametrize("name", ["model.decoder.layer_norm", "model.decoder.layers.0.fc1"])
def test_weights_that_cannot_be_stored_are_refused(
    teacher: Whisper, tmp_path: Path, name: str, value: float, message: str
):
    grids = plan(teacher, rules_of("paper"))
    weight = teacher.get_parameter(f"{name}.weight")
    weight.data.view(-1)[0] = value * (100 if "fc1" in name else 1)
    with pytest.raises(ValueError, match=message):
        save(teacher, grids, tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


@given(st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_flipped_bit_is_noticed_wherever_it_is(
    packed_folder: Path, tmp_path: Path, data: st.DataObject
):
    shutil.copytree(packed_folder, tmp_path, dirs_exist_ok=True)
    content = bytearray((packed_folder / FILE_NAME).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    # half of the tries in the header, which is a small part of the file
    last = header - 1 if data.draw(st.booleans()) else len(content) - 1
    place, bit = data.draw(st.integers(0, last)), data.draw(st.integers(0, 7))
    content[place] ^= 1 << bit
    (tmp_path / FILE_NAME).write_bytes(content)
    try:
        weights = load(tmp_path).state_dict()
    except ValueError:
        return
    expected = load(packed_folder).state_dict()  # a byte that nobody reads, such as padding
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9999])
def test_a_file_that_is_cut_off_is_refused(packed_folder: Path, tmp_path: Path, share: float):
    shutil.copytree(packed_folder, tmp_path, dirs_exist_ok=True)
    content = (packed_folder / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="is damaged or cut off"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"cut off|no safetensors file"):
        inspect(tmp_path)


def test_a_file_of_another_version_is_refused(packed_folder: Path, tmp_path: Path):
    shutil.copytree(packed_folder, tmp_path, dirs_exist_ok=True)
    packed = read(packed_folder)
    for metadata in ({"format": "dqw-2"}, {"format": "pt"}, None):
        save_file(packed.tensors, tmp_path / FILE_NAME, metadata)
        with pytest.raises(ValueError, match="dqw-1 is read here. Quantise the model again"):
            load(tmp_path)


def test_grids_that_were_changed_in_the_metadata_are_noticed(packed_folder: Path, tmp_path: Path):
    shutil.copytree(packed_folder, tmp_path, dirs_exist_ok=True)
    packed = read(packed_folder)
    with safe_open(packed_folder / FILE_NAME, framework="pt") as file:
        checksum = file.metadata()["sha256"]
    grids = packed.grids | {"model.decoder.embed_tokens": Grid(bits=7)}
    metadata = metadata_of(grids, packed.architecture) | {"sha256": checksum}
    save_file(packed.tensors, tmp_path / FILE_NAME, metadata)
    with pytest.raises(ValueError, match="the checksum does not match"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("decoder_layers", 3), ("d_model", 64), ("encoder_attention_heads", 4)]
)
def test_a_file_of_another_model_is_refused(
    packed_folder: Path, tmp_path: Path, key: str, value: int
):
    shutil.copytree(packed_folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError, match=f"belongs to another model: its {key} is"):
        load(tmp_path)


def test_a_folder_without_a_quantised_model_is_refused(teacher_folder: Path):
    with pytest.raises(FileNotFoundError, match="holds no quantized.safetensors"):
        load(teacher_folder)


def test_plain_transformers_finds_no_weights_rather_than_wrong_ones(packed_folder: Path):
    with pytest.raises(OSError, match="no file named"):
        Whisper.from_pretrained(packed_folder)


def test_generation_settings_come_along(packed_folder: Path, teacher: Whisper):
    ours, theirs = load(packed_folder).generation_config, teacher.generation_config
    assert ours.max_length == theirs.max_length == 24
    assert vars(ours)["alignment_heads"] == vars(theirs)["alignment_heads"]


@presets
def test_the_file_is_as_long_as_its_header_and_the_forecast_say(
    teacher: Whisper, preset: str, tmp_path: Path
):
    size_bytes = save(teacher, quantise(teacher, rules_of(preset)), tmp_path)
    content = (tmp_path / FILE_NAME).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    ends = [entry["data_offsets"][1] for entry in header.values()]
    assert 8 + length + max(ends) == len(content) == size_bytes
    stored = {entry["dtype"] for name, entry in header.items() if name.endswith(".q")}
    assert stored <= {"I8", "U8"}
    if preset != "ct2_int8":
        assert "F32" not in {entry["dtype"] for entry in header.values()}
    assert size_report(teacher.config, preset) == inspect(tmp_path)
