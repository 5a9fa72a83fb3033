"""What a trainer is told, as `spec.json` in the run folder: numbers only, every `"auto"` resolved.

URIs are an absolute path, `s3://bucket/key`, or a path relative to the run folder, so that a run folder made by
hand also works: `python -m trainers RUN_FOLDER`. What has a default is for such a spec, and for those of earlier
versions: the service writes every field.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Record
from schemas.fine_tuning import (
    FDivergence,
    GuardAction,
    LossType,
    LrScheduler,
    Precision,
    Quantization,
    ReferenceType,
)
from schemas.preference_rows import RowFormat

BY_HAND = "by-hand"
"""The id of what no service made."""


class ModelSource(Record):
    id: str
    """The registry's id, e.g. `smollm2-135m-instruct`."""
    uri: str
    """A folder in Hugging Face's layout, safetensors only."""


class AdapterSource(Record):
    uri: str
    sha256: str
    """Of `adapter_model.safetensors`, checked before it is loaded."""


class PreferenceFile(Record):
    file_id: str = BY_HAND
    uri: str
    sha256: str
    """Of the whole file, as `sha256sum` prints it."""
    format: RowFormat


class DpoParameters(Record):
    """What has a default is off by it: a spec of an earlier version means the same as it did."""

    beta: float
    loss_type: LossType | dict[LossType, float]
    label_smoothing: float = 0.0
    f_divergence: FDivergence = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    """Read with `alpha_divergence` alone."""
    ld_alpha: float | None = None
    """Null: every token counts once."""
    use_weighting: bool = False
    discopop_tau: float = 0.05
    """Read with `discopop` alone."""
    max_length: int
    """Tokens of prompt + completion; longer rows lose the end of their completion."""
    batch_size: int
    """Pairs per optimizer step, over all workers."""
    n_epochs: int
    learning_rate: float
    lr_scheduler: LrScheduler
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float

    @property
    def loss_weights(self) -> dict[LossType, float]:
        """The losses that are summed, with their weights."""
        return self.loss_type if isinstance(self.loss_type, dict) else {self.loss_type: 1.0}


class LoraParameters(Record):
    r: int
    alpha: int
    dropout: float = 0.0
    target_modules: tuple[str, ...] | Literal["all-linear"]
    use_rslora: bool = False
    use_dora: bool = False


class GuardParameters(Record):
    """Looked at with each evaluation; null: not watched. Units as in `GuardOptions`."""

    max_kl: float | None
    min_chosen_logp_ratio: float | None
    max_valid_loss_rise: float | None
    patience: int
    action: GuardAction


class SftParameters(Record):
    """Of the phase that estimates the reference; whatever is not here is DPO's: batch size, schedule, clipping."""

    n_epochs: int
    learning_rate: float


class RunSpec(Record):
    version: Literal[1] = 1
    run_id: str = BY_HAND
    job_id: str = BY_HAND
    fine_tuned_model: str
    """The name the result will have, for the model card: `ft:MODEL:PROJECT:SUFFIX:ID`."""
    model: ModelSource
    initial_adapter: AdapterSource | None = None
    """Set when training starts from an `ft:` model."""
    reference: ReferenceType = "initial"
    sft: SftParameters | None = None
    """Set when the reference is `sft`."""
    training_file: PreferenceFile
    validation_file: PreferenceFile | None = None
    dpo: DpoParameters
    lora: LoraParameters
    precision: Precision
    quantization: Quantization | None = None
    """Of the frozen base; null: none."""
    seed: int = 0
    workers: Annotated[int, Field(ge=1)] = 1
    gpus_per_worker: int = 0
    """0: train on CPU."""
    shards_base: bool | None = False
    """Whether each worker holds its share of the frozen base alone; null: where the whole one does not fit a device."""
    evaluate_every_steps: Annotated[int, Field(ge=1)] = 100
    """Also after the last step; unused without a validation file."""
    guards: GuardParameters | None = None
    """Null without a validation file."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 100
    """Also every five minutes, and at the end of every epoch; those are kept, the others replace each other."""
    reference_cache: str | None = None
    """Folder of reference log-probabilities, shared between jobs; null: each job computes its own."""
    created_at: int | None = None
    """Of the job, Unix time: what a chat template takes for today, in every attempt. Null: each attempt's own day."""
    resume_from: tuple[str, ...] = ()
    """Run folders of earlier attempts, newest first; the first whole checkpoint found there is resumed when the
    run's own folder has none."""
    traceparent: str | None = None
    """W3C's header of the request that made the job: the trainer's log lines name its trace. Null: not traced."""

    @model_validator(mode="after")
    def _check_sft(self) -> "RunSpec":
        if (self.reference == "sft") != (self.sft is not None):
            raise ValueError('sft is set when reference is "sft", and then alone')
        return self

    @model_validator(mode="after")
    def _check_sharding(self) -> "RunSpec":
        if self.shards_base and (self.workers == 1 or self.quantization is not None):
            raise ValueError("shards_base needs two workers or more, and a base without quantization")
        return self
