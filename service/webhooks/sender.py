"""The sender: takes what is due from the outbox, sends it, and writes down how that went.

Claim, send, record are three steps with no transaction around them: a sender that dies in between has only delayed its
delivery, which is due again when its claim has run out. So a receiver may see a `webhook-id` twice, and never not at
all within three days. Any number of senders may run beside each other.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import structlog

from schemas.ids import DeliveryId, EndpointId, ProjectId
from schemas.webhooks import WebhookEvent
from service.clock import Clock
from service.db.engine import Database
from service.db.tables import WebhookDeliveryRow
from service.db.webhooks import DeliveryRepository, EndpointRepository
from service.webhooks.messages import Message, build_message
from service.webhooks.post import PostFailed, WebhookPoster
from service.webhooks.schedule import JITTER, next_attempt
from service.webhooks.signing import SigningKeyChanged, WebhookSigner

log = structlog.get_logger()

AT_ONCE = 8
AT_ONCE_OF_A_PROJECT = 2
"""A project whose endpoints hang holds up its own deliveries, and nobody else's."""
LOOK_S = 0.5
CLAIM = timedelta(minutes=2)
"""More than a name's lookup and a post can take together."""


class WebhookSender:
    def __init__(
        self,
        database: Database,
        signer: WebhookSigner,
        poster: WebhookPoster,
        clock: Clock,
        draw_jitter: Callable[[], float] = lambda: random.uniform(*JITTER),  # noqa: S311  # no secret
    ) -> None:
        self._database = database
        self._signer = signer
        self._poster = poster
        self._clock = clock
        self._draw_jitter = draw_jitter
        self._under_way: Counter[ProjectId] = Counter()
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop; what is under way then is waited for."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
            while not stop.is_set():
                if not self.start_next(pool):
                    stop.wait(LOOK_S)

    def start_next(self, pool: Executor) -> bool:
        """Claim what is due longest and hand it to the pool. False, and an error in the log: nothing to do for now."""
        with self._lock:
            if self._under_way.total() >= AT_ONCE:
                return False
            busy = [project for project, count in self._under_way.items() if count >= AT_ONCE_OF_A_PROJECT]
        try:
            delivery = self._claim(busy)
        except Exception:
            log.exception("webhook_claim_failed")
            return False
        if delivery is None:
            return False
        project_id = ProjectId(delivery.project_id)
        with self._lock:
            self._under_way[project_id] += 1
        pool.submit(self._deliver, delivery).add_done_callback(lambda done: self._finish(project_id, done))
        return True

    def _finish(self, project_id: ProjectId, done: "Future[None]") -> None:
        with self._lock:
            self._under_way[project_id] -= 1
            self._under_way += Counter()  # drops the zeros
        error = done.exception()
        if error is not None:
            log.error("webhook_delivery_broke", exc_info=error)

    def _claim(self, passing_over: list[ProjectId]) -> WebhookDeliveryRow | None:
        now = self._clock()
        with self._database.write() as session:
            return DeliveryRepository(session).claim_due(now=now, retry_at=now + CLAIM, passing_over=passing_over)

    def _deliver(self, delivery: WebhookDeliveryRow) -> None:
        status_code, error = self._send(delivery)
        now = self._clock()
        changes: dict[str, Any] = {"last_attempt_at": now, "last_status_code": status_code, "last_error": error}
        if error is None:
            changes |= {"status": "delivered", "next_attempt_at": None}
        else:
            again_at = next_attempt(
                attempts=delivery.attempts, created_at=delivery.created_at, now=now, jitter=self._draw_jitter()
            )
            changes |= {"status": "pending" if again_at else "failed", "next_attempt_at": again_at}
        with self._database.write() as session:
            DeliveryRepository(session).record_attempt(
                DeliveryId(delivery.id), attempt=delivery.attempts, changes=changes
            )
        log.info("webhook_sent", delivery_id=delivery.id, status_code=status_code, attempt=delivery.attempts)

    def _send(self, delivery: WebhookDeliveryRow) -> tuple[int | None, str | None]:
        """Return the answer's status, if one came, and why the delivery does not count, if it does not."""
        try:
            message = self._build(delivery)
            status_code = self._poster.post(message.url, headers=message.headers, body=message.body)
        except (SigningKeyChanged, PostFailed) as error:
            return None, str(error)
        return status_code, explain_status(status_code)

    def _build(self, delivery: WebhookDeliveryRow) -> Message:
        with self._database.read() as session:
            endpoint = EndpointRepository(session).find_any(EndpointId(delivery.endpoint_id))
        if endpoint is None:
            raise PostFailed("the endpoint was deleted")
        event = WebhookEvent.model_validate(delivery.event)
        return build_message(endpoint, DeliveryId(delivery.id), event, signer=self._signer, now=self._clock())


def explain_status(status_code: int) -> str | None:
    """Why an answer with this status is no delivery, or None when it is one."""
    match status_code // 100:
        case 2:
            return None
        case 3:
            return f"the endpoint answered {status_code}; redirects are not followed, give the URL where it leads"
    return f"the endpoint answered {status_code}; answer with a 2xx"
