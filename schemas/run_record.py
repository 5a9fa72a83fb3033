"""What a trainer leaves in its run folder: event chunks, checkpoint manifests, `outcome.json`.

Every event has a `key` that names what it tells ("step:17", "checkpoint:20"). A resumed run tells again what happened
after its checkpoint, with the same key and the same numbers; the reader keeps the first of each key, so nobody sees a
step twice or misses one.
"""

from typing import Literal

from schemas.base import Record

RESUMED = "resumed:"
"""How the key of an event begins that tells from which checkpoint the run goes on; told before any step after it."""


class StepMetrics(Record):
    """One optimizer step; sums over pairs or tokens of all workers, never means of means. Log-probs in nats."""

    step: int
    total_steps: int
    epoch: float
    train_loss: float
    learning_rate: float
    grad_norm: float
    rewards_chosen: float
    rewards_rejected: float
    rewards_margin: float
    rewards_accuracy: float
    logps_chosen: float
    logps_rejected: float
    perplexity_chosen: float
    perplexity_rejected: float
    train_mean_token_accuracy: float
    """Share of chosen tokens that are the policy's argmax."""
    trained_tokens: int
    """Prompt and completion tokens of both sides, since the start of the job."""
    step_seconds: float


class SftMetrics(Record):
    """One step of the phase that estimates the reference; means over the preferred completions' tokens."""

    step: int
    total_steps: int
    """Of the phase."""
    epoch: float
    loss: float
    """Negative log-likelihood a token, in nats; a row's tokens count times its weight."""
    learning_rate: float
    grad_norm: float
    mean_token_accuracy: float
    trained_tokens: int
    """Prompt and preferred completion, since the start of the job."""
    step_seconds: float
    seconds_left: float
    """Estimate for the rest of the job, DPO included, by tokens."""


class EvaluationMetrics(Record):
    """The policy on the whole validation file after `step`."""

    step: int
    total_steps: int
    valid_loss: float
    valid_rewards_chosen: float
    valid_rewards_rejected: float
    valid_rewards_margin: float
    valid_rewards_accuracy: float
    valid_logps_chosen: float
    valid_logps_rejected: float
    valid_perplexity_chosen: float
    valid_perplexity_rejected: float
    valid_mean_token_accuracy: float
    valid_kl: float
    """Mean exact KL(policy || reference) per completion position, in nats."""


class CheckpointRecord(Record):
    """A checkpoint that is kept and can be served: the end of an epoch, or the step whose adapter is the result."""

    step: int
    adapter: str
    """Folder of the unpacked adapter, relative to the run folder."""
    adapter_sha256: str
    adapter_bytes: int
    train_loss: float
    train_mean_token_accuracy: float
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None


class RunEvent(Record):
    key: str
    created_at: float
    """Unix seconds."""
    level: Literal["info", "warn", "error"]
    message: str
    step_metrics: StepMetrics | None = None
    """Key `step:N`; at an evaluation step the same event carries `evaluation` too."""
    evaluation: EvaluationMetrics | None = None
    checkpoint: CheckpointRecord | None = None
    sft_metrics: SftMetrics | None = None
    """Key `sft:N`."""


class StoredFile(Record):
    path: str
    """Relative to the folder that the record lies in."""
    sha256: str
    bytes: int


class CheckpointManifest(Record):
    step: int
    files: tuple[StoredFile, ...]


class RunError(Record):
    code: str
    message: str
    param: str | None = None


class AdapterResult(Record):
    folder: str
    """Relative to the run folder."""
    sha256: str
    """Of `adapter_model.safetensors`."""
    bytes: int
    archive: StoredFile


class Outcome(Record):
    """`outcome.json`: how the run ended. A run without one did not end, whatever its process says."""

    status: Literal["succeeded", "failed", "paused"]
    """`paused`: a guard asked the user; the newest checkpoint is where another attempt goes on."""
    error: RunError | None
    adapter: AdapterResult | None
    metrics_csv: StoredFile | None
    steps: int
    trained_tokens: int
    train_seconds: float
    """Of this attempt's training loop."""
    peak_memory_bytes: int
    """Peak resident memory of worker 0 (CPU) or peak allocated on its GPU."""
