"""Command line of `distill`: one subcommand for each configuration dataclass."""

import logging
import sys

import jsonargparse
import rich
import transformers

from distill.config import EvaluateConfig, InitConfig, TrainConfig


def main(arguments: list[str] | None = None) -> int:
    """Parse and call. Returns 0 when done, 1 when the run failed; bad arguments exit with 2."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    transformers.utils.logging.disable_progress_bar()
    commands = {"init": InitConfig, "train": TrainConfig, "evaluate": EvaluateConfig}
    config = jsonargparse.auto_cli(
        commands, as_positional=False, args=arguments, prog="whisper-distill"
    )
    try:
        match config:
            case InitConfig():
                from distill.train import init

                init(config)
            case TrainConfig():
                from distill.train import train

                train(config)
            case EvaluateConfig():
                from distill.evaluate import evaluate

                evaluate(config)
    except (FileNotFoundError, ValueError) as error:
        rich.print(f"[red]whisper-distill failed:[/red] {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
