"""What a run has done so far, as the files of a checkpoint: from these alone it goes on as if it had never stopped.

No random state is among them: every draw follows from the seed, the step (`trainers.seeding`) and how it is cut into
passes, whose budget goes with these files (`trainers.dpo.token_budget`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from peft import PeftConfig
from safetensors.torch import load, save
from torch import Tensor
from torch.optim import Optimizer

from schemas.base import Record
from schemas.run_layout import ADAPTER
from schemas.run_record import EvaluationMetrics, StepMetrics
from trainers.dpo.reference import ReferenceTable
from trainers.models.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LEARNING, Policy

OPTIMIZER = "optimizer.safetensors"
REFERENCE = "reference.safetensors"
REFERENCE_ADAPTER = "reference_adapter.safetensors"
"""Where the job estimated its reference: no file of the spec could give it back."""
HISTORY = "history.jsonl"
BEST_ADAPTER = "best_adapter.safetensors"
PAIRS = "pairs.sha256"
"""Of the tokens that the reference was computed on."""


class HistoryEntry(Record):
    """One step as told, so that a resumed run's results begin at step 1."""

    step: StepMetrics
    evaluation: EvaluationMetrics | None


@dataclass(slots=True)
class Progress:
    reference: ReferenceTable
    pairs_sha256: str
    history: list[HistoryEntry] = field(default_factory=list)
    best_adapter: bytes | None = None
    """Weights that a guard which stops the run would deliver; None without such guards."""
    tokens_before: int = 0
    """Trained before the first step, by SFT."""

    @property
    def step(self) -> int:
        return len(self.history)

    @property
    def trained_tokens(self) -> int:
        return self.history[-1].step.trained_tokens if self.history else self.tokens_before


def adapter_bytes(policy: Policy) -> bytes:
    """Return the adapter's weights as it is now, in safetensors' format."""
    return save(policy.adapter_weights(), metadata={"format": "pt"})


def adapter_files(policy: Policy, weights: bytes, *, base_model: str) -> dict[str, bytes]:
    """Return the adapter's two files in PEFT's own layout."""
    return {
        ADAPTER_CONFIG: _config_json(policy.model.peft_config[LEARNING], base_model),
        ADAPTER_WEIGHTS: weights,
    }


def checkpoint_files(progress: Progress, policy: Policy, optimizer: Optimizer, *, base_model: str) -> dict[str, bytes]:
    adapter = adapter_files(policy, adapter_bytes(policy), base_model=base_model)
    history = "".join(f"{entry.model_dump_json()}\n" for entry in progress.history)
    best = {} if progress.best_adapter is None else {BEST_ADAPTER: progress.best_adapter}
    frozen = {REFERENCE_ADAPTER: save(policy.reference_weights())} if policy.reference_is_estimated else {}
    return (
        best
        | frozen
        | {
            **{f"{ADAPTER}/{name}": content for name, content in adapter.items()},
            OPTIMIZER: save_optimizer(optimizer),
            REFERENCE: save({"log_probs": progress.reference.log_probs_D2}),
            PAIRS: progress.pairs_sha256.encode(),
            HISTORY: history.encode(),
        }
    )


def restore(files: Mapping[str, bytes], progress: Progress, policy: Policy, optimizer: Optimizer) -> bool:
    """Put policy, optimizer and progress where the checkpoint was made.

    Returns: whether its pairs had these tokens; if not, nothing is known of the reference.
    """
    load_adapter(files, policy)
    if policy.reference_is_estimated:
        policy.load_reference_weights(load(files[REFERENCE_ADAPTER]))
    load_optimizer(optimizer, files[OPTIMIZER])
    are_same_pairs = files.get(PAIRS, b"").decode() in ("", progress.pairs_sha256)  # no name: an earlier version's
    if are_same_pairs:
        progress.reference.log_probs_D2.copy_(load(files[REFERENCE])["log_probs"])
    progress.best_adapter = files.get(BEST_ADAPTER)
    progress.history[:] = [HistoryEntry.model_validate_json(line) for line in files[HISTORY].splitlines()]
    return are_same_pairs


def load_adapter(files: Mapping[str, bytes], policy: Policy) -> None:
    policy.load_adapter_weights(load(files[f"{ADAPTER}/{ADAPTER_WEIGHTS}"]))


def save_optimizer(optimizer: Optimizer) -> bytes:
    states = optimizer.state_dict()["state"]
    return save({f"{number}.{name}": value for number, state in states.items() for name, value in state.items()})


def load_optimizer(optimizer: Optimizer, content: bytes) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in load(content).items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": states, "param_groups": whole["param_groups"]})


def _config_json(config: PeftConfig, base_model: str) -> bytes:
    """Byte for byte the same for the same adapter: PEFT keeps names in sets, whose order changes with the process."""
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        settings = json.loads(Path(folder, ADAPTER_CONFIG).read_text())
    for name in settings:
        if isinstance(getattr(config, name, None), set):
            settings[name].sort()
    settings["base_model_name_or_path"] = base_model
    return (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()
