"""A finished dataset goes to the Hub, is read back as it was, and nothing goes that may not."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.config import DataConfig
from distill.shards import read_labels, shard_passes, shard_paths
from pipeline.__main__ import main
from pipeline.publishing.config import PublishConfig
from pipeline.publishing.dataset import compare, publish
from pipeline.relabelling import write_sidecar
from pipeline.schema import Index, from_json, read_index, to_json
from pipeline.shards import read_shard
from pipeline.upload import PublishError
from tests.hub_server import File, HubServer, hub_environment
from tests.pipeline.publishing.conftest import PARTS, make_dataset

REPO = "owner/speech"
SPLITS = {("tones", "test-clean"): "aaa", ("bells", "train"): "mine"}
"""Other names for two splits, of which the first by name has no train."""
ROOT = Path(__file__).parents[3]


def config(**fields: Any) -> PublishConfig:
    return PublishConfig(**{"repo_id": REPO, **fields})


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def shards_on(hub: HubServer) -> dict[str, bytes]:
    return {p: c for p, c in hub.repository(REPO).files.items() if p.endswith(".tar")}


def rewrite(output: Path, **fields: Any) -> Index:
    """Change fields of the index."""
    index = dataclasses.replace(read_index(output), **fields)
    (output / "index.json").write_text(to_json(index))
    return index


def test_every_shard_goes_up_as_it_is_and_the_index_says_where_it_lies(
    finished: Path, hub: HubServer
):
    publish(finished, config())
    local = read_index(finished)
    remote = from_json(Index, hub.repository(REPO).files["index.json"])
    on_hub = shards_on(hub)
    assert len(on_hub) == len(local.shards) == len(remote.shards) > 4
    for here, there in zip(local.shards, remote.shards, strict=True):
        assert there.name == f"{here.corpus}/{here.split}/{here.name}"
        assert on_hub[f"shards/{there.name}"] == (finished / "shards" / here.name).read_bytes()
        assert there.sha256 == here.sha256
    assert remote.totals == local.totals


def test_publishing_again_sends_nothing(finished: Path, hub: HubServer):
    publish(finished, config())
    uploads = len(hub.uploads)
    assert publish(finished, config()).difference.send == ()
    assert len(hub.uploads) == uploads
    assert not compare(finished, config()).send


def test_no_path_of_this_machine_is_published(finished: Path, hub: HubServer):
    publish(finished, config())
    for path, content in hub.repository(REPO).files.items():
        if not path.endswith(".tar"):
            assert str(finished.parent) not in content.decode(), path
            assert "/tmp/" not in content.decode(), path


def test_paths_of_this_machine_inside_the_samples_are_warned_of(
    finished: Path, hub: HubServer, caplog: pytest.LogCaptureFixture
):
    publish(finished, config())
    assert f"such as {read_index(finished).teacher['model']}" in caplog.text


def test_the_card_names_what_the_hub_wants_to_know(finished: Path, hub: HubServer):
    publish(finished, config())
    card = hub.repository(REPO).files["README.md"].decode()
    data = front_matter(card)
    assert data["license"] == ["cc-by-4.0", "cc-by-nc-4.0"]
    assert data["language"] == ["en"]
    assert data["task_categories"] == ["automatic-speech-recognition"]
    assert data["size_categories"] == ["n<1K"]
    assert [c["config_name"] for c in data["configs"]] == ["default", "bells", "tones"]
    assert data["configs"][0]["data_files"] == [
        {"split": "train", "path": ["shards/bells/train/*.tar", "shards/tones/train/*.tar"]},
        {"split": "test_clean", "path": ["shards/tones/test-clean/*.tar"]},
    ]
    columns = {yaml.safe_dump(info["features"]) for info in data["dataset_info"]}
    assert len(data["dataset_info"]) == 3
    assert len(columns) == 1, "every configuration has the same columns"


def test_the_card_tells_the_numbers_of_the_run(finished: Path, hub: HubServer):
    publish(finished, config())
    card = hub.repository(REPO).files["README.md"].decode()
    index = read_index(finished)
    report = json.loads((finished / "report.json").read_text())
    assert index.teacher["revision"] in card
    assert "`0.1`" in card
    assert "| tones | train | en | cc-by-4.0 |" in card
    assert "| bells | train | en | cc-by-nc-4.0 |" in card
    for split in report["splits"]:
        counts = f"| {split['corpus']} | {split['split']} | {split['planned']} | {split['kept']} |"
        assert counts in card
    assert "wer: 1" in card
    point = report["sweep_by"]["corpus"]["tones"][-1]
    assert f"| {point['max_wer']} | {point['clips']} | {point['hours']:.4f} |" in card
    assert "Known failure modes" in card


def test_the_card_says_which_corpora_have_no_transcripts(finished: Path, output: Path):
    report = json.loads((output / "report.json").read_text())
    for point in report["sweep_by"]["corpus"]["bells"]:
        point |= {"mean_wer": None, "mean_rates": {}}
    (output / "report.json").write_text(json.dumps(report))
    from pipeline.publishing.dataset import plan_publication

    def card(folder: Path) -> str:
        files = plan_publication(folder, config()).all_files
        return next(file.read().decode() for file in files if file.path == "README.md")

    assert "bells: no transcript" in card(output)
    assert "no transcript to" not in card(finished)


# While it is being labelled.


def test_the_card_follows_a_run_and_gives_way_to_that_of_the_finished_dataset(
    output: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
):
    plan = json.loads((output / "plan.json").read_text())
    parts = sorted((output / "ledger" / plan["keys"]["label_key"]).glob("*.parquet"))
    (output / "index.json").unlink()
    aside = output.parent / "aside"
    aside.mkdir()
    for part in parts:  # nothing is labelled yet
        part.rename(aside / part.name)

    def card() -> str:
        assert main(["publish", str(output), REPO, "--card_only"]) == 0
        assert set(hub.repository(REPO).files) - {".gitattributes"} == {
            "publication.json",
            "README.md",
        }
        return hub.repository(REPO).files["README.md"].decode()

    tones = next(c for c in plan["corpora"] if (c["name"], c["split"]) == ("tones", "train"))
    hours = f"{tones['duration_seconds'] / 3600:.4f}"
    row = f"| tones | train | en | cc-by-4.0 | {{}} of {tones['num_blocks']} | {{}} | {hours} |"
    first = card()
    assert row.format(0, "0.0000") in first
    assert front_matter(first)["license"] == ["cc-by-4.0", "cc-by-nc-4.0"]
    assert "has no data yet" in first
    assert hub.repository(REPO).private

    for part in parts:
        (aside / part.name).rename(part)
    assert row.format(tones["num_blocks"], hours) in card()
    uploads, requests = len(hub.uploads), len(hub.requests)
    card()
    assert len(hub.uploads) == uploads
    assert not any("/commit/" in path for _, path in hub.requests[requests:])


def test_a_card_of_a_run_does_not_replace_that_of_a_finished_dataset(
    finished: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
):
    assert main(["publish", str(finished), REPO, "--card_only"]) == 0
    publish(finished, config())
    files = dict(hub.repository(REPO).files)
    assert "has no data yet" not in files["README.md"].decode()
    assert main(["publish", str(finished), REPO, "--card_only"]) == 1
    assert f"{REPO} holds a finished dataset" in capsys.readouterr().err
    assert hub.repository(REPO).files == files


def test_a_card_of_a_run_that_was_never_begun_is_refused(
    tmp_path: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
):
    assert main(["publish", str(tmp_path), REPO, "--card_only"]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["publish", str(tmp_path), REPO, "--card_only", "--append"]) == 2
    assert "card_only sends no data" in capsys.readouterr().err


def test_the_card_loads_a_corpus_that_has_the_split_that_it_names(output: Path):
    from pipeline.publishing.dataset import plan_publication

    index = read_index(output)
    kept = [e for e in index.shards if (e.corpus, e.split) in SPLITS]
    renamed = [dataclasses.replace(e, corpus=SPLITS[e.corpus, e.split]) for e in kept]
    report = json.loads((output / "report.json").read_text())
    for split in report["splits"]:
        split["corpus"] = SPLITS.get((split["corpus"], split["split"]), split["corpus"])
    (output / "report.json").write_text(json.dumps(report))
    rewrite(output, shards=tuple(renamed))
    files = plan_publication(output, config()).all_files
    card = next(file.read().decode() for file in files if file.path == "README.md")
    names = [c["config_name"] for c in front_matter(card)["configs"]]
    assert names == ["default", "aaa", "mine"]
    assert 'load_dataset("owner/speech", "mine", split="train")' in card


# What may not go up.


def complaint(hub: HubServer, output: Path, **fields: Any) -> str:
    """See that publishing is refused before anything is sent, and return why."""
    with pytest.raises((PublishError, ValueError, FileNotFoundError)) as caught:
        publish(output, config(**fields))
    assert not hub.uploads
    assert not hub.repositories
    return str(caught.value)


def with_bells(output: Path, **fields: Any) -> None:
    """Write the shards of the bells again, with other fields in their samples."""
    from pipeline.audio import decode_flac
    from pipeline.shards import write_shard

    entries = []
    for entry in read_index(output).shards:
        path = output / "shards" / entry.name
        if entry.corpus == "bells":
            clips = [
                (dataclasses.replace(sample, **fields), decode_flac(flac))
                for sample, flac in read_shard(path)
            ]
            entry = write_shard(path, clips)
        entries.append(entry)
    rewrite(output, shards=tuple(entries))


def with_licence(output: Path, licence: str) -> None:
    with_bells(output, licence=licence)


@pytest.mark.parametrize("licence", ["cc-by-nc-nd-4.0", "all rights reserved", "LDC-User"])
def test_a_licence_that_forbids_it_or_is_unknown_stops_everything(
    output: Path, hub: HubServer, licence: str
):
    with_licence(output, licence)
    words = complaint(hub, output)
    assert "bells-train" in words
    assert licence in words
    assert "--leave_out_forbidden" in words


def test_a_licence_that_was_read_can_be_allowed_by_name(output: Path, hub: HubServer):
    with_licence(output, "LDC-User")
    publish(output, config(allow_licence=["ldc-user"]))
    data = front_matter(hub.repository(REPO).files["README.md"].decode())
    assert data["license"] == ["cc-by-4.0", "other"]
    assert data["license_name"] == "LDC-User"


def test_what_is_forbidden_can_be_left_out_and_the_card_says_so(output: Path, hub: HubServer):
    with_licence(output, "cc-by-nc-nd-4.0")
    publish(output, config(leave_out_forbidden=True))
    assert not [path for path in hub.repository(REPO).files if "bells" in path]
    index = from_json(Index, hub.repository(REPO).files["index.json"])
    assert {entry.corpus for entry in index.shards} == {"tones"}
    card = hub.repository(REPO).files["README.md"].decode()
    assert "bells" not in card.split("## How it was labelled")[0]


def test_where_everything_is_forbidden_leaving_out_does_not_help(output: Path, hub: HubServer):
    index = read_index(output)
    rewrite(output, shards=tuple(entry for entry in index.shards if entry.corpus == "bells"))
    with_licence(output, "proprietary")
    assert "proprietary" in complaint(hub, output, leave_out_forbidden=True)


@pytest.mark.parametrize("parameter", ["X-Amz-Credential=AK", "sig=x", "token=hf_x", "Signature=x"])
def test_a_signed_link_does_not_go_up(output: Path, hub: HubServer, parameter: str):
    with_bells(output, recording=f"https://b.s3/a.flac?{parameter}0f0f")
    words = complaint(hub, output)
    assert "names https://b.s3/a.flac by a signed link" in words
    assert "0f0f" not in words


def test_a_shard_that_was_changed_is_found_before_anything_is_sent(output: Path, hub: HubServer):
    path = next((output / "shards").glob("tones-train-*.tar"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert f"{path} is not the file that the index lists" in complaint(hub, output)


def test_a_shard_that_is_missing_is_found_before_anything_is_sent(output: Path, hub: HubServer):
    next((output / "shards").glob("tones-train-*.tar")).unlink()
    assert "is missing" in complaint(hub, output)


@pytest.mark.parametrize(
    ("name", "message"),
    [("index.json", "not a finished dataset"), ("report.json", "whisper-pipeline report")],
)
def test_a_folder_that_is_not_finished_is_refused(
    output: Path, hub: HubServer, name: str, message: str
):
    (output / name).unlink()
    assert message in complaint(hub, output)


def test_an_empty_dataset_is_refused(output: Path, hub: HubServer):
    rewrite(output, shards=())
    assert "no clip to publish" in complaint(hub, output)


def test_splits_that_the_hub_could_not_tell_apart_are_refused(output: Path, hub: HubServer):
    index = read_index(output)
    twin = dataclasses.replace(index.shards[0], split="test_clean")
    twins = [twin if e == index.shards[0] else e for e in index.shards]
    rewrite(output, shards=tuple(twins))
    report = json.loads((output / "report.json").read_text())
    split = {**report["splits"][0], "corpus": twin.corpus, "split": "test_clean"}
    (output / "report.json").write_text(json.dumps(report | {"splits": [*report["splits"], split]}))
    assert "same name on the Hub" in complaint(hub, output)


def test_a_missing_token_is_found_before_the_shards_are_read(
    output: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in complaint(hub, output)
    assert not hub.requests


# Further splits.


@pytest.fixture(scope="session")
def further(tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path) -> Path:
    """Another split of one of the corpora, labelled and filtered in the same way."""
    folder = tmp_path_factory.mktemp("further")
    return make_dataset(folder, teacher_folder, [("tones", "dev", "cc-by-4.0", 2)])


def test_a_split_can_be_added_and_adding_it_again_changes_nothing(
    finished: Path, further: Path, hub: HubServer
):
    publish(finished, config())
    before = shards_on(hub)
    publish(further, config(append=True))
    index = from_json(Index, hub.repository(REPO).files["index.json"])
    first, second = read_index(finished), read_index(further)
    assert shards_on(hub).items() > before.items()
    assert len(index.shards) == len(first.shards) + len(second.shards)
    assert index.totals.planned == first.totals.planned + second.totals.planned
    card = hub.repository(REPO).files["README.md"].decode()
    assert {f["split"] for f in front_matter(card)["configs"][0]["data_files"]} == {
        "train",
        "dev",
        "test_clean",
    }
    assert "| tones | dev | en |" in card
    assert "| bells | train | en |" in card
    assert publish(further, config(append=True)).difference.send == ()


def only(output: Path, corpus: str) -> Path:
    """Let a dataset be of one corpus."""
    entries = read_index(output).shards
    rewrite(output, shards=tuple(entry for entry in entries if entry.corpus == corpus))
    return output


@pytest.fixture
def bells(finished: Path, tmp_path: Path) -> Path:
    return only(shutil.copytree(finished, tmp_path / "bells"), "bells")


@pytest.fixture
def tones(finished: Path, tmp_path: Path) -> Path:
    return only(shutil.copytree(finished, tmp_path / "tones"), "tones")


def test_a_split_is_added_to_what_the_hub_holds_now_also_where_it_stumbles(
    bells: Path, tones: Path, further: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
):
    publish(bells, config())
    publish(tones, config(append=True))  # reads the index that knows the bells only
    before = shards_on(hub)
    hub.requests.clear()
    for name in ("index.json", "card.json"):  # the first question is whether there is one

        def second(method: str, path: str, name: str = name) -> bool:
            return path.endswith(name) and hub.requests.count(("HEAD", path)) == 2

        hub.fail(503, second)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    publish(further, config(append=True))
    assert all(fault.times == 0 for fault in hub.faults)
    assert shards_on(hub).items() > before.items()


def test_a_hub_that_does_not_say_what_it_holds_is_not_added_to(
    bells: Path, tones: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
):
    publish(bells, config())
    hub.requests.clear()
    hub.fail(
        503,
        lambda _, path: path.endswith("card.json") and hub.requests.count(("HEAD", path)) != 1,
        times=float("inf"),
    )
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(PublishError, match="could not read card.json of owner/speech"):
        publish(tones, config(append=True))


def with_file(hub: HubServer, path: str, content: bytes | None) -> None:
    """Commit by other means: a file, or that there is none."""
    repository = hub.repository(REPO)
    state = {p: f for p, f in repository.states[repository.head].items() if p != path}
    if content is not None:
        state[path] = File(content, is_lfs=True)
    repository.commit(state, [path])


def test_an_append_that_was_interrupted_is_finished_by_the_same_command(
    bells: Path, tones: Path, hub: HubServer
):
    publish(bells, config())
    before = shards_on(hub)
    name = next(e.name for e in read_index(tones).shards if e.split == "train")
    with_file(hub, f"shards/tones/train/{name}", b"what an earlier attempt has left")
    hub.requests.clear()
    hub.fail(403, lambda _, path: [p for _, p in hub.requests if "/commit/" in p][1:] == [path])
    with pytest.raises(PublishError, match="may not write there"):
        publish(tones, config(append=True, commit_files=1))
    publish(tones, config(append=True, commit_files=1))
    assert shards_on(hub).items() > before.items()
    index = from_json(Index, hub.repository(REPO).files["index.json"])
    assert {entry.corpus for entry in index.shards} == {"bells", "tones"}
    states = list(hub.repository(REPO).states.values())[2:]
    assert all("index.json" in state for state in states), "what it names is there all the time"


def test_nobody_is_told_to_replace_shards_that_lack_their_index(
    bells: Path, tones: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
):
    publish(bells, config())
    with_file(hub, "index.json", None)
    before = hub.repository(REPO).files
    for options in (["--append"], ["--append", "--dry_run"]):
        assert run_command(str(tones), REPO, *options) == 1
        error = capsys.readouterr().err
        assert "Finish that one first" in error
        assert "Publish without --append" not in error
    assert hub.repository(REPO).files == before


def test_a_private_repository_is_not_taken_for_none_where_there_is_no_token(
    bells: Path, tones: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
):
    publish(bells, config())
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PublishError, match="if it is private, run `hf auth login`"):
        compare(tones, config(append=True))


def test_labels_that_are_appended_to_splits_that_are_there_are_on_the_card(
    output: Path, hub: HubServer
):
    publish(output, config())
    write_sidecar(output, output, "other")
    publish(output, config(append=True))
    assert "| `labels@other` |" in hub.repository(REPO).files["README.md"].decode()
    assert publish(output, config(append=True)).difference.send == ()


def test_what_was_labelled_otherwise_cannot_be_added(finished: Path, output: Path, hub: HubServer):
    publish(finished, config())
    rewrite(output, label_key="another")
    with pytest.raises(ValueError, match="labelled or filtered otherwise"):
        publish(output, config(append=True))


def test_nothing_can_be_added_to_what_is_not_there(finished: Path, hub: HubServer):
    assert "Publish without --append first" in complaint(hub, finished, append=True)


def test_without_append_the_repository_then_holds_this_dataset_only(
    finished: Path, further: Path, hub: HubServer
):
    publish(finished, config())
    publish(
        further,
        config(),
    )
    assert {path.split("/")[2] for path in shards_on(hub)} == {"dev"}


# The command.


def run_command(*arguments: str) -> int:
    return main(["publish", *arguments])


def test_a_dry_run_prints_what_goes_up_and_sends_nothing(
    finished: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
):
    assert run_command(str(finished), REPO, "--dry_run") == 0
    printed = capsys.readouterr().out
    assert not hub.repositories
    listed = re.findall(r"^send +([\d,]+)  (\S+)$", printed, flags=re.MULTILINE)
    assert run_command(str(finished), REPO) == 0
    sent = {
        path: len(content)
        for path, content in hub.repository(REPO).files.items()
        if path != ".gitattributes"
    }
    assert {path: int(size.replace(",", "")) for size, path in listed} == sent
    card = hub.repository(REPO).files["README.md"].decode()
    assert printed.endswith(f"\nREADME.md:\n\n{card}\n")
    assert f"{len(sent)} files sent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-owner"], 2, "OWNER/NAME"),
        (["somebody/name"], 1, "may not write there"),
        ([REPO, "--commit_files", "0"], 2, "commit_files"),
    ],
)
def test_the_command_says_in_one_line_why_it_does_not(
    finished: Path,
    hub: HubServer,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
):
    assert run_command(str(finished), *arguments) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("whisper-pipeline: error: ")
    assert message in error
    assert not hub.repositories


def test_a_damaged_shard_is_a_failure_and_no_wrong_argument(
    output: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
):
    next((output / "shards").glob("*.tar")).write_bytes(b"damaged")
    assert run_command(str(output), REPO) == 1
    assert "is not the file that the index lists" in capsys.readouterr().err


def test_licences_and_visibility_are_options(
    output: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
):
    with_licence(output, "LDC-User")
    assert run_command(str(output), REPO) == 2
    assert "--allow_licence NAME" in capsys.readouterr().err
    options = ["--allow_licence", "LDC-User", "--private", "false"]
    assert run_command(str(output), REPO, *options) == 0
    assert not hub.repository(REPO).private


# Read back, in a process of its own whose client knows no other Hub.


def python(hub: HubServer, home: Path, code: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=hub_environment(hub, home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def snippets(card: str) -> dict[str, str]:
    found = re.findall(r"<!-- tested: (\w+) -->\n```python\n(.*?)```", card, flags=re.DOTALL)
    return dict(found)


LOAD = """
import json
from datasets import Features, Json, Value, load_dataset, load_dataset_builder

bare = Features({"flac": Value("binary"), "json": Json()})
typed = load_dataset_builder("owner/speech").info.features
found = {"features": [], "ids": {}, "columns": sorted(typed["json"])}
for name in ("default", "tones", "bells"):
    features = Features({"flac": Value("binary"), "json": typed["json"]})
    loaded = load_dataset("owner/speech", name, features=features)
    for split, rows in loaded.items():
        found["features"].append(str(rows.features))
        found["ids"][f"{name}/{split}"] = sorted(row["id"] for row in rows["json"])
streamed = load_dataset("owner/speech", features=bare, split="train", streaming=True)
found["streamed"] = sorted(row["json"]["id"] for row in streamed)
again = load_dataset(
    "webdataset",
    data_files={"train": "hf://datasets/owner/speech/shards/*/train/*.tar"},
    features=bare,
    split="train",
)
found["by_kind"] = sorted(row["json"]["id"] for row in again)
found["declared"] = {
    name: str(load_dataset_builder("owner/speech", name).info.features)
    for name in ("default", "tones", "bells")
}
print(json.dumps(found))
"""


def ids_of(folder: Path, keep: Sequence[tuple[str, str]]) -> list[str]:
    return sorted(
        sample.id
        for entry in read_index(folder).shards
        if (entry.corpus, entry.split) in keep
        for sample, _ in read_shard(folder / "shards" / entry.name)
    )


def test_datasets_and_webdataset_read_back_what_was_published(
    finished: Path, hub: HubServer, tmp_path: Path
):
    publish(finished, config())
    found = json.loads(python(hub, tmp_path / "home", LOAD))
    assert len(set(found["features"])) == 1, "identical in every split and configuration"
    assert len(found["features"]) == 2 + 2 + 1
    assert len(set(found["declared"].values())) == 1
    assert "Audio(sampling_rate=16000" in found["declared"]["default"]
    train = ids_of(finished, [("tones", "train"), ("bells", "train")])
    test = ids_of(finished, [("tones", "test-clean")])
    assert found["ids"]["default/train"] == found["streamed"] == found["by_kind"] == train
    assert found["ids"]["default/test_clean"] == found["ids"]["tones/test_clean"] == test
    assert found["ids"]["bells/train"] == ids_of(finished, [("bells", "train")])
    assert {part[0] for part in PARTS} == {"tones", "bells"}

    shown = snippets(hub.repository(REPO).files["README.md"].decode())
    assert shown.keys() == {"webdataset", "datasets"}
    for code in shown.values():
        printed = python(hub, tmp_path / "home", code).splitlines()
        assert sorted(line.split()[0] for line in printed) == train
        assert all(line.split()[1] == "16000" for line in printed)


def test_a_downloaded_copy_is_what_the_trainer_reads(
    finished: Path, hub: HubServer, tmp_path: Path
):
    from huggingface_hub import snapshot_download

    publish(finished, config())
    copy = snapshot_download(REPO, repo_type="dataset", local_dir=tmp_path / "copy")
    paths = shard_paths([copy], "train", verify=True)
    assert len(paths) == sum(entry.split == "train" for entry in read_index(finished).shards)


def test_plain_load_dataset_needs_nothing_but_the_name(
    finished: Path, hub: HubServer, tmp_path: Path
):
    pytest.importorskip("torchcodec", reason="datasets decodes sound with torchcodec")
    publish(finished, config())
    code = "from datasets import load_dataset\nprint(load_dataset('owner/speech'))"
    assert "test_clean" in python(hub, tmp_path / "home", code)


def test_labels_of_another_teacher_go_up_beside_their_shards(
    output: Path, hub: HubServer, tmp_path: Path
):
    from huggingface_hub import snapshot_download

    write_sidecar(output, output, "other")
    publish(output, config())
    copy = snapshot_download(REPO, repo_type="dataset", local_dir=tmp_path / "copy")
    readings = shard_passes(DataConfig(shards=[copy], labels="other"))
    for reading in readings:
        assert reading.labels
        assert read_labels(reading.labels).keys() == {
            s.id for s, _ in read_shard(str(reading.path))
        }
    assert "| `labels@other` |" in hub.repository(REPO).files["README.md"].decode()
    assert not compare(output, config()).send

    next(output.glob("labels@other/tones-*.jsonl")).unlink()
    with pytest.raises(FileNotFoundError, match="whisper-pipeline relabel"):
        publish(output, config())
    shutil.rmtree(output / "labels@other")
    publish(output, config())
    assert not [path for path in hub.repository(REPO).files if path.startswith("labels@")]
