import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.block_stage import ProcessBlock
from pipeline.plan import make_plan
from pipeline.run import build_graph
from pipeline.teacher import resolve_revision, settle


def test_a_runners_page_counts_what_became_of_the_utterances(corpus, configure, tones):
    odd = {"audio_filepath": "tone0.wav", "text": "something else", "id": "odd"}
    config = configure(corpus(*tones(3), odd, "{oops"), max_failed_fraction=0.5)
    plan = make_plan(config, resolve_revision(settle(config.teacher)))
    graph = beam.Pipeline(FnApiRunner())
    build_graph(graph, plan.blocks, ProcessBlock(config, plan.keys, plan.num_utterances), {})
    result = graph.run()
    result.wait_until_finish()
    found = result.metrics().query()
    counters = {m.key.metric.name: m.committed for m in found["counters"]}
    assert {name: counters[f"utterances_{name}"] for name in ("kept", "rejected", "failed")} == {
        "kept": 3,
        "rejected": 1,
        "failed": 1,
    }
    spread = {m.key.metric.name: m.committed for m in found["distributions"]}
    assert spread["block_milliseconds"].count == len(plan.blocks) > 1
    assert spread["block_milliseconds"].sum > 0
    assert spread["block_kept_seconds"].count == len(plan.blocks)
