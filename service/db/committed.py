"""Facts that hold once the transaction at hand is committed; one that is rolled back takes its facts with it."""

from typing import cast

from sqlalchemy.orm import Session

from service.telemetry.facts import Fact

_FACTS = "facts"


def tell_on_commit(session: Session, fact: Fact) -> None:
    session.info.setdefault(_FACTS, []).append(fact)


def facts_of(session: Session) -> list[Fact]:
    return cast(list[Fact], session.info.get(_FACTS, []))
