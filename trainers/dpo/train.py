"""The training loop, the same on every worker; worker 0 tells and writes.

A step's numbers are written before the checkpoint that stands on them is committed: who resumes has missed nothing.
"""

from schemas.run_layout import ADAPTER, checkpoint_prefix
from schemas.run_record import CheckpointRecord, EvaluationMetrics, RunEvent, StepMetrics
from schemas.run_spec import RunSpec
from trainers.checkpoints import newest_whole, prune, stored_file, write_checkpoint
from trainers.distributed import Workers
from trainers.dpo.evaluate import ReferenceStates, evaluate
from trainers.dpo.optimizer_step import OptimizerStep
from trainers.dpo.prepare import Prepared
from trainers.dpo.progress import HistoryEntry, Progress, checkpoint_files, restore
from trainers.dpo.reference import ReferenceTable
from trainers.dpo.shared_reference import SharedReference
from trainers.errors import ReferenceContractBroken, RunStopped
from trainers.events import EventLog, message
from trainers.metrics import evaluation_metrics
from trainers.models.lora import ADAPTER_WEIGHTS
from trainers.run_folder import RunFolder
from trainers.stop_signal import StopSignal

TOKENS_A_PASS = {"cpu": 1024, "cuda": 8192}


class TrainingLoop:
    def __init__(
        self, prepared: Prepared, spec: RunSpec, folder: RunFolder, workers: Workers, events: EventLog, stop: StopSignal
    ) -> None:
        self.shared_reference = SharedReference(folder, spec, workers, events)
        self.progress = Progress(ReferenceTable(len(prepared.pairs)))
        self._prepared = prepared
        self._spec = spec
        self._folder = folder
        self._workers = workers
        self._events = events
        self._token_budget = TOKENS_A_PASS[workers.device.type]
        self._reference_states = ReferenceStates()
        self._optimizer_step = OptimizerStep(prepared, spec, workers, stop, self._token_budget)

    def resume(self) -> None:
        """Go back to the newest whole checkpoint of this run or of an earlier attempt, if there is one."""
        earlier = [RunFolder(self._folder.resolve(uri)) for uri in self._spec.resume_from]
        found = newest_whole([self._folder, *earlier]) if self._workers.writes else None
        checkpoint = self._workers.from_first(found)
        if checkpoint is None:
            return
        restore(checkpoint.files, self.progress, self._prepared.objective.policy, self._prepared.optimizer)
        step, total = checkpoint.step, self._prepared.plan.total_steps
        self._events.tell(message(f"resumed:{self._spec.run_id}:{step}", f"Resumed after step {step} of {total}"))

    def run(self) -> None:
        """Make the steps that are left. Raises: NonFiniteLoss, ReferenceContractBroken, RunStopped."""
        plan = self._prepared.plan
        for step in range(self.progress.step + 1, plan.total_steps + 1):
            metrics, stop_requested = self._make_step(step)
            entry = HistoryEntry(step=metrics, evaluation=self._evaluate(step))
            self.progress.history.append(entry)
            self._events.tell(_step_event(entry))
            self.shared_reference.keep(self.progress.reference)
            if stop_requested or plan.ends_epoch(step) or step % self._spec.checkpoint_every_steps == 0:
                self._write_checkpoint(entry)
            if stop_requested and step < plan.total_steps:
                raise RunStopped(f"stopped after step {step} of {plan.total_steps}")

    def _make_step(self, step: int) -> tuple[StepMetrics, bool]:
        """Make it; a first one that shows a cached reference to be wrong is made again with a computed one."""
        try:
            return self._optimizer_step.make(step, self.progress)
        except ReferenceContractBroken:
            if not self.shared_reference.distrust(self.progress.reference):
                raise
            return self._optimizer_step.make(step, self.progress)

    def _evaluate(self, step: int) -> EvaluationMetrics | None:
        pairs, total = self._prepared.validation, self._prepared.plan.total_steps
        is_due = step % self._spec.evaluate_every_steps == 0 or step == total
        if not pairs or not is_due:
            return None
        self._events.flush()
        sums = evaluate(
            self._prepared.objective, pairs, self._workers, self._reference_states, token_budget=self._token_budget
        )
        return evaluation_metrics(sums, step=step, total_steps=total)

    def _write_checkpoint(self, entry: HistoryEntry) -> None:
        if not self._workers.writes:
            return
        step, policy = entry.step.step, self._prepared.objective.policy
        files = checkpoint_files(self.progress, policy, self._prepared.optimizer, base_model=self._spec.model.id)
        is_kept = self._prepared.plan.ends_epoch
        if is_kept(step):
            self._events.tell(_checkpoint_event(entry, files[f"{ADAPTER}/{ADAPTER_WEIGHTS}"]))
        write_checkpoint(self._folder, step, files, before_commit=self._events.flush)
        prune(self._folder, is_kept=is_kept)


def _step_event(entry: HistoryEntry) -> RunEvent:
    step, evaluation = entry.step, entry.evaluation
    validation = "" if evaluation is None else f", validation loss {evaluation.valid_loss:.4f}"
    text = f"Step {step.step}/{step.total_steps}: training loss {step.train_loss:.4f}{validation}"
    told = message(f"step:{step.step}", text)
    return told.model_copy(update={"step_metrics": step, "evaluation": evaluation})


def _checkpoint_event(entry: HistoryEntry, weights: bytes) -> RunEvent:
    step, evaluation = entry.step, entry.evaluation
    stored = stored_file(ADAPTER_WEIGHTS, weights)
    record = CheckpointRecord(
        step=step.step,
        adapter=f"{checkpoint_prefix(step.step)}/{ADAPTER}",
        adapter_sha256=stored.sha256,
        adapter_bytes=stored.bytes,
        train_loss=step.train_loss,
        train_mean_token_accuracy=step.train_mean_token_accuracy,
        valid_loss=None if evaluation is None else evaluation.valid_loss,
        valid_mean_token_accuracy=None if evaluation is None else evaluation.valid_mean_token_accuracy,
    )
    told = message(f"checkpoint:{step.step}", f"Checkpoint saved at step {step.step}, the end of epoch {step.epoch:g}")
    return told.model_copy(update={"checkpoint": record})
