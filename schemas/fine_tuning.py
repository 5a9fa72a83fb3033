"""`/v1/fine_tuning/jobs`: OpenAI's objects, and fields of ours beside theirs.

beta, told the right way round: a *higher* beta holds the policy *closer* to the reference.
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from schemas.base import Request, Response

JobStatus = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
GuardAction = Literal["stop", "pause", "warn"]
LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
FDivergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]
LrScheduler = Literal["linear", "cosine", "constant"]
Precision = Literal["fp32", "bf16"]
Quantization = Literal["nf4"]
Sharding = Literal["auto", "full", "none"]
ReferenceType = Literal["initial", "base", "sft"]


Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
FlipProbability = Annotated[float, Field(ge=0, lt=0.5)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Negative = Annotated[float, Field(lt=0)]


def _auto_or_number(given: object) -> str:
    return "auto" if isinstance(given, str) else "number"


Auto = Annotated[Literal["auto"], Tag("auto")]
AutoOr = Discriminator(_auto_or_number)
"""One error a field: without it pydantic reports a wrong number and a wrong "auto" for the same value."""


def _name_or_mixture(given: object) -> str:
    return "mixture" if isinstance(given, dict) else "name"


LossWeight = Annotated[float, Field(gt=0, le=1_000_000)]
LossMixture = Annotated[dict[LossType, LossWeight], Field(min_length=1)]
LossChoice = Annotated[
    Annotated[LossType, Tag("name")] | Annotated[LossMixture, Tag("mixture")], Discriminator(_name_or_mixture)
]
"""One loss, or the weights of several that are summed."""


class DpoHyperparameters(Request):
    """Each `"auto"` is resolved once the file's pairs are counted, and the job then shows the number."""

    beta: Annotated[Auto | Annotated[float, Field(gt=0, le=2), Tag("number")], AutoOr] = "auto"
    """Strength of the implicit KL term. Higher: closer to the reference."""
    batch_size: Annotated[Auto | Annotated[int, Field(ge=1, le=256), Tag("number")], AutoOr] = "auto"
    """Pairs per optimizer step."""
    n_epochs: Annotated[Auto | Annotated[int, Field(ge=1, le=50), Tag("number")], AutoOr] = "auto"
    learning_rate_multiplier: Annotated[Auto | Annotated[Positive, Tag("number")], AutoOr] = "auto"
    """Times the model's registered base rate."""
    learning_rate: Annotated[Auto | Annotated[float, Field(gt=0, le=1), Tag("number")], AutoOr] = "auto"
    """Overrides the multiplier."""
    loss_type: LossChoice = "sigmoid"
    """TRL 1.16's names."""
    label_smoothing: FlipProbability = 0.0
    """Probability that a label is flipped: of `sigmoid` (then cDPO's loss), `robust`, `exo_pair` and both `aot`."""
    f_divergence: FDivergence = "reverse_kl"
    """What the policy's distance to the reference is measured in (f-DPO, arXiv:2309.16240)."""
    f_alpha_divergence_coef: float | None = None
    """α of `alpha_divergence`. Null: 0.5."""
    ld_alpha: Share | None = None
    """Weight of the tokens past the length of the pair's shorter side (LD-DPO, arXiv:2409.06411). Null: 1."""
    use_weighting: bool = False
    """Weigh each pair by how likely the policy is to write it (WPO, arXiv:2406.11827)."""
    discopop_tau: Positive | None = None
    """Temperature of `discopop`. Null: 0.05."""
    max_length: Annotated[Auto | Annotated[int, Field(ge=16, le=32_768), Tag("number")], AutoOr] = "auto"
    """Tokens of prompt + completion."""
    warmup_ratio: Share = 0.1
    lr_scheduler: LrScheduler = "linear"
    weight_decay: Share = 0.0
    max_grad_norm: Positive = 1.0


ModuleNames = Annotated[tuple[str, ...], Field(min_length=1, max_length=64, strict=False)]


class LoraOptions(Request):
    r: Annotated[int, Field(ge=1, le=256)] = 16
    alpha: Annotated[int, Field(ge=1, le=1024)] = 32
    dropout: DropoutRate = 0.0
    target_modules: ModuleNames | Literal["all-linear"] = "all-linear"
    use_rslora: bool = False
    """Scale by alpha / √r (arXiv:2312.03732)."""
    use_dora: bool = False
    """Learn each weight's magnitude beside its direction (arXiv:2402.09353)."""


class ReferenceOptions(Request):
    type: ReferenceType = "initial"
    """`initial`: the model that training starts from. `base`: the bare base model. `sft`: that model after maximum
    likelihood on the preferred completions, from which DPO then starts; for when no SFT model exists."""
    n_epochs: Annotated[Auto | Annotated[int, Field(ge=1, le=50), Tag("number")], AutoOr] | None = None
    """Of `sft`, and of it alone; null: automatic there."""
    learning_rate: Annotated[Auto | Annotated[float, Field(gt=0, le=1), Tag("number")], AutoOr] | None = None
    """Of `sft`, and of it alone; null: automatic there."""


class EvaluationOptions(Request):
    every_steps: Annotated[Auto | Annotated[Count, Tag("number")], AutoOr] = "auto"
    """Optimizer steps between evaluations on the validation file; the last step is always evaluated."""


class GuardOptions(Request):
    """Limits looked at with each evaluation on the validation file; at least one is given."""

    max_kl: Positive | None = None
    """Mean exact KL(policy || reference) a token, in nats (`valid_kl`)."""
    min_chosen_logp_ratio: Negative | None = None
    """Mean of log policy(chosen) - log reference(chosen), in nats a completion."""
    max_valid_loss_rise: NotNegative | None = None
    """How far validation loss may lie above the lowest one seen."""
    patience: Annotated[int, Field(ge=1, le=1000)] = 1
    """Evaluations in a row beyond a limit before the guard fires."""
    action: GuardAction = "stop"
    """`stop`: end well, with the best adapter as the result. `pause`: wait for the user. `warn`: tell and go on."""


class DpoOptions(Request):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()
    lora: LoraOptions = LoraOptions()
    reference: ReferenceOptions = ReferenceOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    guards: GuardOptions | None = None
    precision: Precision | None = None
    """Null: the model's registered precision."""
    quantization: Quantization | None = None
    """`nf4`: the frozen base in 4 bits, on GPUs (QLoRA, arXiv:2305.14314)."""


class MethodRequest(Request):
    type: Literal["dpo"] = "dpo"
    dpo: DpoOptions = DpoOptions()


class ResourceOptions(Request):
    gpus: Annotated[int, Field(ge=0, le=1024)] | None = None
    """GPUs, one a worker. Null: what the model needs by the registry. 0: train on CPU."""
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Data-parallel workers on CPU; with GPUs there is one worker a GPU."""
    sharding: Sharding = "auto"
    """Of the frozen base over two workers or more: `full` gives each its share of every layer, `none` the whole base,
    `auto` shares where the whole base does not fit a worker's device."""


MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
MAX_METADATA_PAIRS = 16
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA_PAIRS)]


class CreateJobRequest(Request):
    model: Annotated[str, Field(min_length=1, max_length=256)]
    """A base model of the registry or an `ft:` model of this project."""
    training_file: Annotated[str, Field(min_length=1, max_length=64)]
    validation_file: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    metadata: Metadata | None = None
    method: MethodRequest = MethodRequest()
    resources: ResourceOptions = ResourceOptions()
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Among the project's own waiting jobs the highest goes first."""


class JobError(Response):
    code: str
    message: str
    param: str | None


class LegacyHyperparameters(Response):
    """OpenAI's deprecated top-level triple; repeats what `method` says."""

    n_epochs: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]


class Method(Response):
    type: Literal["dpo"]
    dpo: DpoOptions


class FineTuningJob(Response):
    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    error: JobError | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: LegacyHyperparameters
    model: str
    organization_id: str
    result_files: list[str]
    seed: int
    status: JobStatus
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    estimated_finish: int | None
    integrations: list[str]
    """Always empty: no third party is told about a job."""
    metadata: dict[str, str] | None
    method: Method
    resources: ResourceOptions
    priority: int


class JobEvent(Response):
    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, float | int | str | None] | None


class CheckpointMetrics(Response):
    step: int
    train_loss: float | None
    train_mean_token_accuracy: float | None
    valid_loss: float | None
    valid_mean_token_accuracy: float | None
    full_valid_loss: float | None
    full_valid_mean_token_accuracy: float | None


class Checkpoint(Response):
    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int
