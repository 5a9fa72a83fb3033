"""Whether a lost run was killed for its memory, and what its user can do: a killed process says nothing itself."""

KILLED = frozenset({"exit code 137", "exit code -9"})
"""SIGKILL, as a shell and as Python count it: the kernel's when memory runs out, and an operator's."""
RAYS_WORDS = "killed due to the node running low on memory"
"""Of Ray's memory monitor, of a worker in a group: the driver itself then ends with a code of its own."""


def memory_remedy(cause: str, log_tail: str) -> str:
    """What a message goes on with; empty where nothing speaks of memory."""
    if cause not in KILLED and RAYS_WORDS not in f"{cause}\n{log_tail}":
        return ""
    return "; killed, most likely out of memory: lower batch_size or max_length, or give its machine more memory"
