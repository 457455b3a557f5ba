"""Every profile under configs/beam is made of options that Beam has, and gives the same graph."""

import re
import subprocess
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.portability import common_urns
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.config import PipelineConfig
from pipeline.config_files import config_parser, from_values
from pipeline.plan import Block, Keys
from pipeline.run import ProcessBlock, build_graph
from pipeline.workers import pipeline_options, resource_hints

ROOT = Path(__file__).parents[1]
PROFILES = sorted((ROOT / "configs/beam").glob("*.yaml"))
BLOCKS = [
    Block(
        id="mine-train-00000",
        corpus="mine",
        split="train",
        start=0,
        stop=1,
        position="0",
        duplicates=(),
        duration_seconds=1.0,
        fingerprint="",
    )
]


def name(path: Path) -> str:
    return path.stem


def configure(profile: Path) -> PipelineConfig:
    """Read a configuration with a profile beside it, as the command does."""
    parser = config_parser(exit_on_error=False)
    files = (ROOT / "configs/pipeline/minimal.yaml", profile)
    return from_values(parser, parser.parse_args([f"--config={file}" for file in files]))


def graph_of(config: PipelineConfig):
    """Lay out the graph with a profile's options and return its proto, and the options."""
    options = pipeline_options(config.beam, default_workers=2)
    hints = resource_hints(options)
    graph = beam.Pipeline(FnApiRunner())
    keys = Keys(teacher_revision="", label_key="", shard_key="")
    build_graph(graph, BLOCKS, ProcessBlock(config, keys, 1), hints)
    return graph.to_runner_api(), options


@pytest.mark.parametrize("profile", PROFILES, ids=name)
def test_profile_beside_a_config_names_its_runner(profile: Path):
    config = configure(profile)
    assert config.corpora
    _, options = graph_of(config)
    assert options.view_as(StandardOptions).runner == config.beam["runner"]


@pytest.mark.parametrize("profile", PROFILES, ids=name)
def test_profile_changes_nothing_of_the_graph_but_its_resources(profile: Path):
    proto, _ = graph_of(configure(profile))
    names = {t.unique_name for t in proto.components.transforms.values()}
    assert {"list blocks", "spread blocks", "label, filter, commit"} <= names
    shuffles = [
        t
        for t in proto.components.transforms.values()
        if t.spec.urn == common_urns.primitives.GROUP_BY_KEY.urn
    ]
    assert len(shuffles) == 1


def test_only_the_labelling_stage_asks_for_the_gpu():
    proto, _ = graph_of(configure(ROOT / "configs/beam/dataflow.yaml"))
    accelerated = {
        identifier
        for identifier, environment in proto.components.environments.items()
        if common_urns.resource_hints.ACCELERATOR.urn in environment.resource_hints
    }
    assert accelerated
    stages = {
        t.unique_name.split("/")[0]
        for t in proto.components.transforms.values()
        if t.environment_id in accelerated
    }
    assert stages == {"label, filter, commit"}


@pytest.mark.parametrize("engine", ["dataflow", "flink", "spark"])
def test_profile_of_a_cluster_names_the_number_format_of_its_workers(engine: str):
    config = configure(ROOT / f"configs/beam/{engine}.yaml")
    assert config.workers_elsewhere
    assert (config.teacher.model, config.teacher.dtype) == ("embedded", "float16")


def test_there_is_a_profile_for_each_engine():
    assert sorted(map(name, PROFILES)) == [
        "dataflow",
        "flink",
        "local",
        "local-processes",
        "portable",
        "spark",
    ]


def test_the_job_array_is_a_script_that_names_its_config():
    script = ROOT / "configs/beam/slurm-array.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert re.search(r"--num_shards .*SLURM_ARRAY_TASK_COUNT", text)
    alone = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert alone.returncode != 0
    assert "give the configuration" in alone.stderr
