"""The printed table has the numbers of results.json, for the modes that were asked for."""

from types import SimpleNamespace
from typing import Any

from distill.evaluate_table import comparison_table


def results(mode: str = "short", **parts: list[dict[str, Any]]) -> Any:
    models = [
        SimpleNamespace(
            model=name,
            parameters=parameters,
            relative_speed=speed,
            rates=SimpleNamespace(wer=wer, wer_low=wer - 0.01, wer_high=wer + 0.012),
        )
        for name, parameters, speed, wer in (
            ("teacher", 5_110_000, 1.0, 0.031),
            ("converted", None, 2.345, 0.1114),
        )
    ]
    return SimpleNamespace(mode=mode, models=models, parts=parts)


def test_each_way_of_reading_long_recordings_has_a_column():
    def rows(wer: float) -> list[dict[str, Any]]:
        return [
            {"model": name, "wer": wer + more, "wer_low": wer - 0.01, "wer_high": wer + 0.1}
            for name, more in (("teacher", 0.0), ("converted", 0.02))
        ]

    table = comparison_table(results(chunked=rows(0.05), latency=[{}], sequential=rows(0.04)))
    assert table.splitlines() == [
        "| model | parameters | relative speed | WER, short | WER, long, sequential "
        "| WER, long, chunked |",
        "| --- | --- | --- | --- | --- | --- |",
        "| teacher | 5.1 M | 1.00 × | 3.1 (2.1 to 4.3) | 4.0 (3.0 to 14.0) | 5.0 (4.0 to 15.0) |",
        "| converted |  | 2.35 × | 11.1 (10.1 to 12.3) | 6.0 (3.0 to 14.0) | 7.0 (4.0 to 15.0) |",
    ]


def test_short_form_alone_makes_a_table_too():
    head, _, first, _ = comparison_table(results()).splitlines()
    assert head == "| model | parameters | relative speed | WER, short |"
    assert first == "| teacher | 5.1 M | 1.00 × | 3.1 (2.1 to 4.3) |"


def test_the_rates_of_recordings_alone_are_not_called_short():
    head = comparison_table(results("chunked")).splitlines()[0]
    assert head == "| model | parameters | relative speed | WER, long, chunked |"
