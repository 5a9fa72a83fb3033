"""What a run's log says at its end, for the message of its loss: a trainer's lines are JSON, others are not."""

import json


def last_words(log_tail: str) -> str:
    """The last line that is not blank; of a structured one, the error it ends with, or else what it tells."""
    line = next((line for line in reversed(log_tail.splitlines()) if line.strip()), "").strip()
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict):
        return line
    traceback = str(fields.get("exception", "")).strip()
    return traceback.splitlines()[-1] if traceback else str(fields.get("message") or fields.get("event", line))
