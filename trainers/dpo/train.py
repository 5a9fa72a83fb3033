"""The training loop, the same on every worker; worker 0 tells and writes.

A step's numbers are written before the checkpoint that stands on them is committed: who resumes has missed nothing.
"""

from schemas.run_layout import ADAPTER, checkpoint_prefix
from schemas.run_record import RESUMED, EvaluationMetrics, StepMetrics
from schemas.run_spec import RunSpec
from trainers.checkpoints import CheckpointTimer, newest_whole, prune, write_checkpoint
from trainers.distributed import Workers
from trainers.dpo.evaluate import ReferenceStates, evaluate
from trainers.dpo.guarding import Guarding, GuardVerdict
from trainers.dpo.loop_events import checkpoint_event, step_event
from trainers.dpo.optimizer_step import OptimizerStep
from trainers.dpo.prepare import Prepared
from trainers.dpo.progress import HistoryEntry, Progress, checkpoint_files, restore
from trainers.dpo.reference import ReferenceTable
from trainers.dpo.reference_cache import hash_pairs
from trainers.dpo.shared_reference import SharedReference
from trainers.dpo.token_budget import TokenBudget
from trainers.errors import NonFiniteLoss, ReferenceContractBroken, RunStopped
from trainers.events import EventLog, message, warning
from trainers.metrics import are_finite, evaluation_metrics
from trainers.models.lora import ADAPTER_WEIGHTS
from trainers.run_folder import RunFolder
from trainers.stop_signal import StopRequested, StopSignal

OTHER_PAIRS = (
    "The rows' tokens are others than before the run was resumed, as after a change of the model's chat template: it "
    "goes on with them, and their reference log-probs are computed anew"
)


class TrainingLoop:
    def __init__(
        self, prepared: Prepared, spec: RunSpec, folder: RunFolder, workers: Workers, events: EventLog, stop: StopSignal
    ) -> None:
        self.shared_reference = SharedReference(folder, spec, workers, events)
        self.progress = Progress(ReferenceTable(len(prepared.pairs)), hash_pairs(prepared.pairs))
        self.budget = TokenBudget(prepared.tokens_a_pass, workers, events, pads=prepared.objective.layout.pads)
        self._prepared = prepared
        self._spec = spec
        self._folder = folder
        self._workers = workers
        self._events = events
        self._stop = stop
        self._reference_states = ReferenceStates()
        self._optimizer_step = OptimizerStep(prepared, spec, workers, stop, self.budget)
        self._earlier = [RunFolder(folder.resolve(uri)) for uri in spec.resume_from]
        self._guarding = Guarding(spec, events, self._earlier)
        self._checkpoint_timer = CheckpointTimer()

    def resume(self) -> None:
        """Go back to the newest whole checkpoint of this run or of an earlier attempt, if there is one."""
        found = newest_whole([self._folder, *self._earlier]) if self._workers.writes else None
        checkpoint = self._workers.from_first(found)
        if checkpoint is None:
            return
        policy, optimizer = self._prepared.objective.policy, self._prepared.optimizer
        are_same_pairs = restore(checkpoint.files, self.progress, policy, optimizer)
        self.budget.restore(checkpoint.files)
        step, total = checkpoint.step, self._prepared.plan.total_steps
        self._events.tell(message(f"{RESUMED}{self._spec.run_id}:{step}", f"Resumed after step {step} of {total}"))
        if not are_same_pairs:
            self._events.tell(warning(f"pairs:{self._spec.run_id}", OTHER_PAIRS))
        self._guarding.replay(self.progress)

    def run(self) -> GuardVerdict | None:
        """Make the steps that are left. Returns why a guard ended them before, if one did.

        Raises: NonFiniteLoss, ReferenceContractBroken, RunStopped.
        """
        if self._lacks_evaluation():
            self._end_step(stop_requested=False)
        while self._guarding.verdict is None and self.progress.step < self._prepared.plan.total_steps:
            metrics, stop_requested = self._make_step(self.progress.step + 1)
            self.progress.history.append(HistoryEntry(step=metrics, evaluation=None))
            self._end_step(stop_requested=stop_requested)
        return self._guarding.verdict

    def _end_step(self, *, stop_requested: bool) -> None:
        """Do what follows on the newest step's update.

        A stop does not wait for an evaluation: the next attempt makes it, and is the first to tell of the step.
        Raises: NonFiniteLoss, RunStopped.
        """
        step, total = self.progress.step, self._prepared.plan.total_steps
        try:
            evaluation = self._evaluate(stop_requested=stop_requested)
        except StopRequested:
            self._write_checkpoint()
            raise RunStopped(f"stopped after step {step} of {total}, before its evaluation") from None
        entry = self.progress.history[-1].model_copy(update={"evaluation": evaluation})
        self.progress.history[-1] = entry
        self._events.tell(step_event(entry))
        self.shared_reference.keep(self.progress.reference)
        self._guarding.look(self.progress, self._prepared.objective.policy)
        is_over = self._guarding.verdict is not None or step == total
        if stop_requested or is_over or self._is_checkpoint_due(step):
            self._write_checkpoint()
        if stop_requested and not is_over:
            raise RunStopped(f"stopped after step {step} of {total}")

    def _make_step(self, step: int) -> tuple[StepMetrics, bool]:
        """Make it; a first one that shows a cached reference to be wrong is made again with a computed one."""
        try:
            return self._optimizer_step.make(step, self.progress)
        except ReferenceContractBroken:
            if not self.shared_reference.distrust(self.progress.reference):
                raise
            return self._optimizer_step.make(step, self.progress)

    def _lacks_evaluation(self) -> bool:
        step, total = self.progress.step, self._prepared.plan.total_steps
        if step == 0 or not self._prepared.validation or self.progress.history[-1].evaluation is not None:
            return False
        return step % self._spec.evaluate_every_steps == 0 or step == total

    def _evaluate(self, *, stop_requested: bool) -> EvaluationMetrics | None:
        """Evaluate the newest step, where one is due. Raises: StopRequested."""
        if not self._lacks_evaluation():
            return None
        if stop_requested:
            raise StopRequested
        self._events.flush()
        step, total, pairs = self.progress.step, self._prepared.plan.total_steps, self._prepared.validation
        objective, states, budget, stop = self._prepared.objective, self._reference_states, self.budget, self._stop
        sums = budget.fit(
            lambda: evaluate(objective, pairs, self._workers, states, token_budget=budget.tokens, stop=stop),
            range(len(pairs)),
            pairs,
            during=f"evaluating after step {step}",
        )
        if not are_finite(sums):
            raise NonFiniteLoss(
                f"validation_file: the evaluation after step {step} gives numbers that are not finite. Lower the "
                "learning rate or look at the rows of the validation file; the checkpoints before this step are kept"
            )
        return evaluation_metrics(sums, step=step, total_steps=total)

    def _is_checkpoint_due(self, step: int) -> bool:
        is_planned = self._prepared.plan.ends_epoch(step) or step % self._spec.checkpoint_every_steps == 0
        return is_planned or self._checkpoint_timer.is_due()

    def _write_checkpoint(self) -> None:
        if not self._workers.writes:
            return
        entry, step, policy = self.progress.history[-1], self.progress.step, self._prepared.objective.policy
        files = checkpoint_files(self.progress, policy, self._prepared.optimizer, base_model=self._spec.model.id)
        is_kept = self._prepared.plan.ends_epoch
        if is_kept(step) and not self._lacks_evaluation():
            weights, folder = files[f"{ADAPTER}/{ADAPTER_WEIGHTS}"], f"{checkpoint_prefix(step)}/{ADAPTER}"
            why = f"the end of epoch {entry.step.epoch:g}"
            self._events.tell(checkpoint_event(entry, weights, adapter=folder, why=why))
        write_checkpoint(self._folder, step, files | self.budget.checkpoint_files(), before_commit=self._events.flush)
        prune(self._folder, is_kept=is_kept)
        self._checkpoint_timer.restart()
