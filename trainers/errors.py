"""Why a run cannot succeed as it was asked; told to the user in `outcome.json` and never retried.

Everything else that is raised is the infrastructure's fault: no outcome is written and the run is tried again. The
errors travel between processes by pickle, hence one positional message each.

    TrainerError
    ├── InvalidTrainingFile
    │   └── TrainingFileNotFound
    ├── InvalidValidationFile
    │   └── ValidationFileNotFound
    ├── UnusableModel · UnusableAdapter · InvalidLoraTargets · QuantizationUnavailable
    ├── NotEnoughMemory
    │   └── ModelTooLarge
    └── NonFiniteLoss · ReferenceContractBroken
    RunStopped (not the user's doing)
    UnreadableSpec (no run to tell of)
"""

MORE_ROOM = (
    'set method.dpo.precision to "bf16" or, on GPUs, method.dpo.quantization to "nf4", where the job has not done so '
    'yet; take more resources.gpus with resources.sharding "full", each of which holds its share of the model; or take '
    "a smaller model"
)
"""What a message of missing memory ends with."""


class TrainerError(Exception):
    code = "training_failed"
    param: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidTrainingFile(TrainerError):
    code = "invalid_training_file"
    param = "training_file"


class InvalidValidationFile(TrainerError):
    code = "invalid_validation_file"
    param = "validation_file"


class TrainingFileNotFound(InvalidTrainingFile):
    code = "file_not_found"


class ValidationFileNotFound(InvalidValidationFile):
    code = "file_not_found"


class UnusableModel(TrainerError):
    code = "model_not_usable"
    param = "model"


class UnusableAdapter(TrainerError):
    code = "adapter_not_usable"
    param = "model"


class InvalidLoraTargets(TrainerError):
    code = "invalid_lora_target_modules"
    param = "method.dpo.lora.target_modules"


class QuantizationUnavailable(TrainerError):
    code = "quantization_unavailable"
    param = "method.dpo.quantization"


class NonFiniteLoss(TrainerError):
    code = "non_finite_loss"


class NotEnoughMemory(TrainerError):
    """A pass over a single pair is too much."""

    code = "not_enough_memory"
    param = "method.dpo.hyperparameters.max_length"


class ModelTooLarge(NotEnoughMemory):
    """The base leaves no room for any pair."""

    param = "model"


class ReferenceContractBroken(TrainerError):
    code = "reference_contract_broken"


class RunStopped(Exception):
    """The run was asked to stop (SIGTERM) and did, between two steps; another attempt goes on from its checkpoint."""


class UnreadableSpec(Exception):
    """The run folder has no spec to go by. No outcome: what wrote the spec, a person or the service, is at fault."""
