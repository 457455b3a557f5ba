"""A worker process: Beam's own, started with a quiet log.

Beam's worker tells of every channel it opens, and its errors again in the launcher. Here it says
what this package has to say; on a terminal errors only, as the launcher draws its table there.
"""

import logging
import os
import signal
import sys
import threading
import time

from pipeline.logs import formatted, is_json

_POLL_SECONDS = 0.5


def set_up_logging() -> None:
    """Print only what concerns the user; Beam's own settings come later and leave this alone."""
    handler = formatted(logging.StreamHandler())
    if is_json():
        logging.getLogger("pipeline").setLevel(logging.INFO)
    else:
        handler.setLevel(logging.ERROR if sys.stderr.isatty() else logging.WARNING)
    handler.addFilter(lambda record: record.name.startswith("pipeline"))
    logging.getLogger().addHandler(handler)


def end_with_launcher(launcher: int) -> None:
    """End this process when its launcher is gone, killed before it could stop its workers."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="launcher_watch", daemon=True).start()


if __name__ == "__main__":
    # Ctrl-C, and the SIGTERM that a scheduler sends to all, are for the launcher, which stops us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_launcher(os.getppid())
    set_up_logging()  # before the import, which warns of an optional package

    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)
