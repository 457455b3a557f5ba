"""Decode a batch token by token, with or without an assistant that drafts.

One loop does both: without an assistant every step judges one token, with one it judges a draft and
keeps what the teacher would have written, row by row. Rows that are done leave the batch.

In float32 the drafted and the plain text are the same tokens. The one way in which they could
differ is a tie that is closer than the rounding of a matrix product (about one part in a million),
since a product of five rows is not rounded as five products of one row are.
"""

import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill.decoder import Decoder, kept_places
from distill.rules import Rules
from distill.speculative import Assistant, Drafter


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a row's decoder is given before it writes."""

    tokens: tuple[int, ...]
    """`<|startofprev|>` with previous text, and the start of the transcript with its task."""
    start: int = 0
    """Where `<|startoftranscript|>` stands in it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a row's decoder wrote."""

    tokens: tuple[int, ...]
    """Without the prompt and without `<|endoftext|>`."""
    avg_logprob: float
    """Mean log-probability of the tokens and of the end, as OpenAI's Whisper counts it: among what
    the rules allow at each place."""
    no_speech_prob: float
    """Probability of `<|nospeech|>` at the start; 0 where the model has no such token."""
    truncated: bool
    """It had not ended when there was no more room."""
    num_steps: int
    """Steps of the teacher that this row took part in, the first one with the prompt included."""
    num_drafted: int = 0
    num_accepted: int = 0
    """Drafted tokens, and those of them that the teacher would have written."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where decoding stops, and how it chooses."""

    max_new_tokens: int = 448
    """The positions of the decoder are a limit of their own."""
    temperature: float = 0.0
    """0 takes the likeliest token, and only then an assistant is of use."""
    seed: int = 0
    """Of the sampling at higher temperatures; a row's does not depend on the rows beside it."""
    draft_length: int | None = None
    """Tokens that an assistant drafts; None adapts it to what is accepted."""


@dataclass(kw_only=True)
class _Row:
    """A row of the batch while it is being written."""

    number: int
    begin: int
    end: int
    """Where it must stop: the first position that may not be written."""
    length: int
    chance: random.Random
    logprob: float = 0.0
    no_speech_prob: float = 0.0
    num_steps: int = 1
    num_drafted: int = 0
    num_accepted: int = 0
    done: bool = False
    truncated: bool = False
    written: list[int] = field(default_factory=list)


@torch.inference_mode()
def decode(
    decoder: Decoder,
    encoded: Tensor,
    prompts: list[Prompt],
    rules: Rules,
    limits: Limits,
    *,
    no_speech: int | None = None,
    assistant: Assistant | None = None,
    assistant_encoded: Tensor | None = None,
) -> list[Answer]:
    """Write an answer to each prompt.

    Args:
        decoder: the teacher's, or the only one.
        encoded: its encoder's output (batch, positions, width).
        prompts: one for each row; they may be of different lengths.
        rules: what may be written.
        limits: where to stop, how to choose.
        no_speech: the id of `<|nospeech|>`.
        assistant: who drafts; not used where tokens are drawn by chance.
        assistant_encoded: the assistant's encoder output; None where it is `encoded`.

    Raises:
        ValueError: a prompt leaves no room for an answer.
    """
    room = decoder.max_positions
    longest = max(len(prompt.tokens) for prompt in prompts)
    if longest >= room:
        raise ValueError(f"a prompt of {longest} tokens leaves no room in {room} positions")
    device = encoded.device
    rows = [
        _Row(
            number=number,
            begin=len(prompt.tokens),
            end=min(room, len(prompt.tokens) + limits.max_new_tokens),
            length=len(prompt.tokens),
            chance=random.Random(limits.seed),
        )
        for number, prompt in enumerate(prompts)
    ]
    tokens = torch.full((len(rows), 2 * room), rules.end, device=device)
    for row, prompt in zip(rows, prompts, strict=True):
        tokens[row.number, : row.begin] = torch.tensor(prompt.tokens, device=device)
    cache = decoder.begin(encoded)
    drafter = None
    if assistant is not None and limits.temperature == 0:
        own = encoded if assistant_encoded is None else assistant_encoded
        drafter = Drafter(assistant, decoder, own, limits.draft_length)

    hidden = decoder.step(tokens[:, :longest], cache)
    if no_speech is not None:
        starts = torch.tensor([prompt.start for prompt in prompts], device=device)
        at_start = decoder.logits(hidden.take_along_dim(starts[:, None, None], 1)[:, 0])
        for row, probability in zip(rows, at_start.softmax(-1)[:, no_speech].tolist(), strict=True):
            row.no_speech_prob = probability
    lengths = torch.tensor([row.length for row in rows], device=device)[:, None]
    hidden = hidden.take_along_dim(lengths[..., None] - 1, 1)

    finished: list[_Row] = []
    num_drafted = 0
    while rows:
        begin = torch.tensor([row.begin for row in rows], device=device)
        lengths = torch.tensor([row.length for row in rows], device=device)[:, None]
        index = lengths + torch.arange(num_drafted + 1, device=device)
        logits = rules.apply(decoder.logits(hidden), tokens, begin, index)
        chosen, logprobs = _choose(logits, limits.temperature, rows)
        drafted = tokens.gather(1, index[:, :-1]).tolist()
        kept = []
        for row, choice, logprob, draft in zip(
            rows, chosen.tolist(), logprobs.tolist(), drafted, strict=True
        ):
            kept.append(_take(row, choice, logprob, draft, rules.end))
        tokens.scatter_(1, index, chosen)
        cache.lengths = [row.length - 1 for row in rows]
        if drafter is not None and num_drafted:
            drafter.learn(num_drafted, kept, [row.length for row in rows])
        going_on = kept_places([not row.done for row in rows])
        if len(going_on) < len(rows):
            finished += [row for row in rows if row.done]
            rows = [rows[place] for place in going_on]
            if not rows:
                break
            cache.select(going_on)
            tokens = tokens[going_on]
            begin = begin[going_on]
            if drafter is not None:
                drafter.select(going_on)
        now = [row.length for row in rows]
        num_drafted = 0
        if drafter is not None:
            num_drafted = min(drafter.length(), max(row.end for row in rows) - min(now) - 1)
            if num_drafted > 0:
                drafter.propose(tokens, now, begin, num_drafted, rules)
        lengths = torch.tensor(now, device=device)[:, None]
        index = lengths - 1 + torch.arange(num_drafted + 1, device=device)
        hidden = decoder.step(tokens.gather(1, index), cache)
        for row in rows:
            row.num_steps += 1
    return [_answer(row) for row in sorted(finished, key=lambda row: row.number)]


def _choose(logits: Tensor, temperature: float, rows: list[_Row]) -> tuple[Tensor, Tensor]:
    """Return tokens and their log-probabilities, both (batch, new)."""
    if temperature == 0:
        chosen = logits.argmax(-1)
    else:
        reached = (logits / temperature).softmax(-1).double().cumsum(-1)
        drawn = torch.tensor(
            [[[row.chance.random()]] for row in rows], dtype=reached.dtype, device=logits.device
        )
        drawn = drawn * reached[..., -1:]
        chosen = torch.searchsorted(reached, drawn, right=True)[..., 0]
    return chosen, logits.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]


def _take(row: _Row, chosen: list[int], logprobs: list[float], draft: list[int], end: int) -> int:
    """Append what the teacher wrote as far as the draft agrees; return how much of it does."""
    kept = 0
    while kept < len(draft) and draft[kept] == chosen[kept]:
        kept += 1
    counted = 0
    for token, logprob in zip(chosen[: kept + 1], logprobs, strict=False):
        row.logprob += logprob
        counted += 1
        if token == end:
            row.done = True
            break
        row.written.append(token)
        row.length += 1
        if row.length >= row.end:
            row.done = row.truncated = True
            break
    if draft:
        row.num_drafted += len(draft)
        row.num_accepted += min(kept, counted)
    return kept


def _answer(row: _Row) -> Answer:
    return Answer(
        tokens=tuple(row.written),
        avg_logprob=row.logprob / (len(row.written) + 1),
        no_speech_prob=row.no_speech_prob,
        truncated=row.truncated,
        num_steps=row.num_steps,
        num_drafted=row.num_drafted,
        num_accepted=row.num_accepted,
    )
