"""Where things lie in an output folder: every path of the contract is spelled here only."""

from dataclasses import dataclass

from pipeline.files import TEMPORARY_SUFFIX, AnyPath


@dataclass(frozen=True)
class Layout:
    """The files of one dataset."""

    output: AnyPath

    @property
    def plan(self) -> AnyPath:
        """Blocks, fingerprints, hours and licences of the last run."""
        return self.output / "plan.json"

    @property
    def config(self) -> AnyPath:
        """The resolved configuration of the last run."""
        return self.output / "config.yaml"

    @property
    def index(self) -> AnyPath:
        """Written last; readers refuse a folder without it."""
        return self.output / "index.json"

    @property
    def estimate(self) -> AnyPath:
        """What a measured sample took, beside which a run then says what it did take."""
        return self.output / "estimate.json"

    @property
    def report_json(self) -> AnyPath:
        """The report for programs."""
        return self.output / "report.json"

    @property
    def report_html(self) -> AnyPath:
        """The report for people."""
        return self.output / "report.html"

    @property
    def shards(self) -> AnyPath:
        """Folder of shards and their commit records."""
        return self.output / "shards"

    def shard(self, block_id: str) -> AnyPath:
        """Kept clips of one block."""
        return self.shards / f"{block_id}.tar"

    def commit_record(self, block_id: str) -> AnyPath:
        """What became of one block; readers trust this, not the shard's existence."""
        return self.shards / f"{block_id}.json"

    def lock(self, block_id: str) -> AnyPath:
        """Held by the worker that is at one block; what a killed one leaves is collected."""
        return self.shards / f".{block_id}.lock{TEMPORARY_SUFFIX}"

    def ledger(self, label_key: str, block_id: str) -> AnyPath:
        """Labels and evidence of one block."""
        return self.output / "ledger" / label_key / f"{block_id}.parquet"

    def canary(self, label_key: str) -> AnyPath:
        """What the teacher of these labels made of clips with known content."""
        return self.output / "ledger" / label_key / "canary.json"

    def failures(self, label_key: str, block_id: str) -> AnyPath:
        """What of one block could not be labelled."""
        return self.output / "failures" / label_key / f"{block_id}.jsonl"

    def timing(self, block_id: str) -> AnyPath:
        """How long it took to write the shard of one block; it counts for nothing else."""
        return self.output / "timings" / f"{block_id}.json"
