"""What a trainer is told, as `spec.json` in the run folder: numbers only, every `"auto"` resolved.

URIs are an absolute path, `s3://bucket/key`, or a path relative to the run folder, so that a run folder made by
hand also works: `python -m trainers RUN_FOLDER`. What has a default is for such a spec, and for those of earlier
versions: the service writes every field. Its bounds are those beyond which nothing can be computed; how much a job may
ask for, the service says.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Record
from schemas.fine_tuning import (
    Count,
    DropoutRate,
    FDivergence,
    FlipProbability,
    GuardAction,
    LossChoice,
    LossType,
    LrScheduler,
    Negative,
    NotNegative,
    Positive,
    Precision,
    Quantization,
    ReferenceType,
    Share,
)
from schemas.loss_options import refused_option
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

    beta: Positive
    loss_type: LossChoice
    label_smoothing: FlipProbability = 0.0
    f_divergence: FDivergence = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    """Read with `alpha_divergence` alone."""
    ld_alpha: Share | None = None
    """Null: every token counts once."""
    use_weighting: bool = False
    discopop_tau: Positive = 0.05
    """Read with `discopop` alone."""
    max_length: Annotated[int, Field(ge=2)]
    """Tokens of prompt + completion; longer rows lose the end of their completion."""
    batch_size: Count
    """Pairs per optimizer step, over all workers."""
    n_epochs: Count
    learning_rate: Annotated[float, Field(ge=0)]
    """0: the adapter stays as it began."""
    lr_scheduler: LrScheduler
    warmup_ratio: Share = 0.0
    weight_decay: Share = 0.0
    max_grad_norm: Positive

    @property
    def loss_weights(self) -> dict[LossType, float]:
        """The losses that are summed, with their weights."""
        return self.loss_type if isinstance(self.loss_type, dict) else {self.loss_type: 1.0}

    @model_validator(mode="after")
    def _check_options(self) -> "DpoParameters":
        refused = refused_option(
            tuple(self.loss_weights),
            label_smoothing=self.label_smoothing,
            f_divergence=self.f_divergence,
            use_weighting=self.use_weighting,
            ld_alpha=self.ld_alpha,
        )
        if refused is not None:
            raise ValueError(f"{refused.name} {refused.why}")
        return self


class LoraParameters(Record):
    r: Count
    alpha: Count
    dropout: DropoutRate = 0.0
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | Literal["all-linear"]
    use_rslora: bool = False
    use_dora: bool = False


class GuardParameters(Record):
    """Looked at with each evaluation; null: not watched. Units as in `GuardOptions`."""

    max_kl: Positive | None
    min_chosen_logp_ratio: Negative | None
    max_valid_loss_rise: NotNegative | None
    patience: Count
    action: GuardAction


class SftParameters(Record):
    """Of the phase that estimates the reference; whatever is not here is DPO's: batch size, schedule, clipping."""

    n_epochs: Count
    learning_rate: Positive


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
    workers: Count = 1
    gpus_per_worker: Annotated[int, Field(ge=0)] = 0
    """0: train on CPU."""
    shards_base: bool | None = False
    """Whether each worker holds its share of the frozen base alone; null: where the whole one does not fit a device."""
    evaluate_every_steps: Count = 100
    """Also after the last step; unused without a validation file."""
    guards: GuardParameters | None = None
    """Null without a validation file."""
    checkpoint_every_steps: Count = 100
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
