"""A share of a plan, for machines that have a file system in common and no cluster.

Each of N processes takes every N-th block, so that long and short corpora are spread evenly, and no
two take the same one. Nobody has to be told of the others: who does what follows from the plan.
"""

import dataclasses
from dataclasses import dataclass

from pipeline.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the shares into which a plan is divided."""

    number: int
    """From 0."""
    of: int

    def __post_init__(self) -> None:
        """Refuse a part that is none."""
        if not 0 <= self.number < self.of:
            raise ValueError(
                f"--shard {self.number} of --num_shards {self.of} does not exist; "
                "shards are counted from 0, so the last is num_shards - 1"
            )

    def __str__(self) -> str:
        """Name it as the command line does."""
        return f"shard {self.number} of {self.of}"

    def of_plan(self, plan: Plan) -> Plan:
        """Return the plan with the blocks of this part only."""
        return dataclasses.replace(plan, blocks=plan.blocks[self.number :: self.of])
