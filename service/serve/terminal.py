"""What a run of the service says to the person who started it, and how it takes being told to stop."""

import signal
import sys


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def interrupt_on_sigterm() -> None:
    """Ctrl-C and SIGTERM both arrive as KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def ignore_signals() -> None:
    """While closing: a second Ctrl-C changes nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
