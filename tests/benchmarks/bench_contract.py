"""Speed of what every clip passes through besides the models; one line per part, nothing asserted.

Run with `make bench` before and after a change, on the same quiet machine.
"""

import time
from collections.abc import Callable

import numpy as np

from pipeline.audio import decode_flac, encode_flac
from pipeline.schema import SAMPLE_RATE
from pipeline.scoring import score

REFERENCE = "Every Tuesday, the boy from America ran at home at two o'clock in the morning."
HYPOTHESIS = "every tuesday the boy from a merica ran home at two oclock in the morning"
CLIP = (0.1 * np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE)).astype(np.float32)


def calls_per_second(function: Callable[[], object], seconds: float = 1.0) -> float:
    """Call a function for about a second and return how often it could be called."""
    function()
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        function()
        calls += 1
    return calls / elapsed


def test_scoring():
    rate = calls_per_second(lambda: score(REFERENCE, HYPOTHESIS, "en"))
    print(f"\nscore: {rate:,.0f} pairs/s")


def test_encoding_flac():
    rate = 10 * calls_per_second(lambda: encode_flac(CLIP))
    print(f"\nencode_flac: {rate:,.0f} x real time")


def test_decoding_flac():
    data = encode_flac(CLIP)
    rate = 10 * calls_per_second(lambda: decode_flac(data))
    print(f"\ndecode_flac: {rate:,.0f} x real time")
