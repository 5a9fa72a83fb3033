"""Why a command does not start. Each message is for the person at the terminal: what, where, and what to do."""


class StartError(Exception):
    """Printed as one message, without a traceback; the exit code is 1."""
