"""Estimate the reference where no SFT model exists: the job's adapter learns the preferred completions by maximum
likelihood, what it is then is frozen, and DPO starts from it (arXiv:2305.18290, section 4).

The phase has steps, events and checkpoints of its own. A run killed inside it goes on inside it; its last checkpoint
stays, so that one killed in DPO's first steps does not make it again.
"""

from dataclasses import dataclass, field

from torch.optim import AdamW

from schemas.run_layout import ADAPTER, SFT_CHECKPOINTS
from schemas.run_record import RESUMED, RunEvent, SftMetrics
from schemas.run_spec import RunSpec, SftParameters
from trainers.checkpoints import CheckpointTimer, newest_whole, prune, write_checkpoint
from trainers.distributed import Workers
from trainers.dpo.plan import StepPlan
from trainers.dpo.prepare import Prepared
from trainers.dpo.progress import (
    OPTIMIZER,
    Progress,
    adapter_bytes,
    adapter_files,
    load_adapter,
    load_optimizer,
    save_optimizer,
)
from trainers.dpo.token_budget import TokenBudget
from trainers.errors import RunStopped
from trainers.events import EventLog, message
from trainers.run_folder import RunFolder
from trainers.seeding import SFT, derive_seed
from trainers.sft.optimizer_step import SftStep
from trainers.sft.step import demonstrations
from trainers.stop_signal import StopSignal

METRICS = "metrics.json"
REFERENCE_PASS = 1 / 3
"""Of a training pass's time: a backward costs two forwards."""


@dataclass(slots=True)
class SftPhase:
    prepared: Prepared
    spec: RunSpec
    sft: SftParameters
    folder: RunFolder
    workers: Workers
    events: EventLog
    stop: StopSignal
    progress: Progress
    """Of the job: its `tokens_before` is kept up to date."""
    budget: TokenBudget
    """Of the job: DPO goes on with what is left of it."""
    _last: SftMetrics | None = field(default=None, init=False)
    """The newest step's numbers."""

    def run(self) -> None:
        """Train the adapter and freeze it as the reference. Raises: NonFiniteLoss, RunStopped."""
        policy = self.prepared.objective.policy
        optimizer = AdamW(policy.parameters(), lr=0.0, weight_decay=self.spec.dpo.weight_decay, fused=True)
        self._resume(optimizer)
        steps = self._steps(optimizer)
        total_steps, timer = steps.plan.total_steps, CheckpointTimer()
        for step in range(1 if self._last is None else self._last.step + 1, total_steps + 1):
            metrics, stop_requested = steps.make(step, trained_tokens=self.progress.tokens_before)
            self._note(metrics)
            self.events.tell(_step_event(metrics))
            is_planned = step == total_steps or step % self.spec.checkpoint_every_steps == 0
            if stop_requested or is_planned or timer.is_due():
                self._write_checkpoint(metrics, optimizer)
                timer.restart()
            if stop_requested:
                raise RunStopped(f"stopped after SFT step {step} of {total_steps}")
        policy.freeze_as_reference()
        self._tell_end()

    def _steps(self, optimizer: AdamW) -> SftStep:
        pairs, dpo = self.prepared.pairs, self.spec.dpo
        plan = StepPlan(len(pairs), dpo.batch_size, self.sft.n_epochs, derive_seed(self.spec.seed, SFT))
        return SftStep(
            self.prepared.objective,
            optimizer,
            plan,
            demonstrations(pairs),
            self.spec,
            self.sft,
            self.workers,
            self.stop,
            self.budget,
            dpo_tokens=sum(pair.packed_length for pair in pairs) * (dpo.n_epochs + REFERENCE_PASS),
        )

    def _note(self, metrics: SftMetrics) -> None:
        self._last = metrics
        self.progress.tokens_before = metrics.trained_tokens

    def _resume(self, optimizer: AdamW) -> None:
        """Go back to the phase's newest whole checkpoint, of this run or of an earlier attempt, if there is one."""
        earlier = [RunFolder(self.folder.resolve(uri)) for uri in self.spec.resume_from]
        found = newest_whole([self.folder, *earlier], under=SFT_CHECKPOINTS) if self.workers.writes else None
        checkpoint = self.workers.from_first(found)
        if checkpoint is None:
            return
        load_adapter(checkpoint.files, self.prepared.objective.policy)
        load_optimizer(optimizer, checkpoint.files[OPTIMIZER])
        self.budget.restore(checkpoint.files)
        metrics = SftMetrics.model_validate_json(checkpoint.files[METRICS])
        self._note(metrics)
        told = f"Resumed after SFT step {metrics.step} of {metrics.total_steps}"
        self.events.tell(message(f"{RESUMED}{self.spec.run_id}:sft:{metrics.step}", told))

    def _write_checkpoint(self, metrics: SftMetrics, optimizer: AdamW) -> None:
        if not self.workers.writes:
            return
        policy = self.prepared.objective.policy
        adapter = adapter_files(policy, adapter_bytes(policy), base_model=self.spec.model.id)
        files = {
            **{f"{ADAPTER}/{name}": content for name, content in adapter.items()},
            OPTIMIZER: save_optimizer(optimizer),
            METRICS: metrics.model_dump_json().encode(),
            **self.budget.checkpoint_files(),
        }
        write_checkpoint(self.folder, metrics.step, files, before_commit=self.events.flush, under=SFT_CHECKPOINTS)
        prune(self.folder, is_kept=lambda _: False, under=SFT_CHECKPOINTS)

    def _tell_end(self) -> None:
        assert self._last is not None, "a phase has a step: there is a pair and an epoch"
        told = f"SFT finished after {self._last.step} steps, loss {self._last.loss:.4f}; DPO starts from here"
        self.events.tell(message("sft:finished", told))


def _step_event(metrics: SftMetrics) -> RunEvent:
    told = message(f"sft:{metrics.step}", f"SFT step {metrics.step}/{metrics.total_steps}: loss {metrics.loss:.4f}")
    return told.model_copy(update={"sft_metrics": metrics})
