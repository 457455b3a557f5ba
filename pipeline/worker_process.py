"""A worker process: Beam's own, started with a quiet log.

Beam's worker tells of every channel it opens, and its errors again in the launcher. Here it says
what this package has to say; on a terminal errors only, as the launcher draws its table there.
"""

import logging
import signal
import sys


def set_up_logging() -> None:
    """Print only what concerns the user; Beam's own settings come later and leave this alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.setLevel(logging.ERROR if sys.stderr.isatty() else logging.WARNING)
    handler.addFilter(lambda record: record.name.startswith("pipeline"))
    logging.getLogger().addHandler(handler)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher, which stops us
    set_up_logging()  # before the import, which warns of an optional package

    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)
