"""What the cluster had at its best of late, so that a node that is away for a while makes no job fail."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from service.db.tables import ClusterCapacityRow

REMEMBERED = timedelta(days=7)
"""For how long jobs wait for what the cluster no longer has."""
NOTED_AGAIN = timedelta(hours=1)
"""How old the note of an unchanged cluster may get: not every look is a write."""
THE_ROW = 1


class ClusterRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def note_capacity(self, *, gpus: int, cpus: int, now: datetime) -> tuple[int, int]:
        """Note what there is now; return the GPUs and the CPUs that there were at most, now or of late."""
        row = self._session.get(ClusterCapacityRow, THE_ROW)
        if row is None:
            row = ClusterCapacityRow(id=THE_ROW, gpus=gpus, gpus_seen_at=now, cpus=cpus, cpus_seen_at=now)
            self._session.add(row)
        if _is_news(gpus, row.gpus, row.gpus_seen_at, now=now):
            row.gpus, row.gpus_seen_at = gpus, now
        if _is_news(cpus, row.cpus, row.cpus_seen_at, now=now):
            row.cpus, row.cpus_seen_at = cpus, now
        self._session.flush()
        return row.gpus, row.cpus


def _is_news(count: int, most: int, seen_at: datetime, *, now: datetime) -> bool:
    if count == most:
        return now - seen_at > NOTED_AGAIN
    return count > most or now - seen_at > REMEMBERED
