"""What goes with an adapter: a model card for people and a passport for machines, saying what it was made of."""

import platform
from dataclasses import dataclass
from importlib.metadata import version

from schemas.base import Record
from schemas.fine_tuning import Quantization
from schemas.run_record import EvaluationMetrics, StepMetrics, StoredFile
from schemas.run_spec import AdapterSource, DpoParameters, LoraParameters, PreferenceFile, RunSpec, SftParameters

LIBRARIES = ("torch", "transformers", "peft", "safetensors", "tokenizers")


class SourceFile(Record):
    file_id: str
    sha256: str


class Passport(Record):
    """Lineage: everything that the adapter follows from, with hashes."""

    fine_tuned_model: str
    job_id: str
    run_id: str
    base_model: str
    base_weights: tuple[StoredFile, ...]
    initial_adapter_sha256: str | None
    reference: str
    sft: SftParameters | None
    training_file: SourceFile
    validation_file: SourceFile | None
    spec_sha256: str
    seed: int
    precision: str
    quantization: Quantization | None
    """Of the frozen base; null: none."""
    gpu_kernels: str | None
    """Whose computed what lies between a GPU's products, with the version; null: transformers' own."""
    max_length: int
    """Where the model reads less than `dpo.max_length`, what it reads."""
    dpo: DpoParameters
    lora: LoraParameters
    workers: int
    steps: int
    trained_tokens: int
    """Of the whole run."""
    delivered_step: int
    delivered_because: str
    adapter: StoredFile
    libraries: dict[str, str]


@dataclass(frozen=True, slots=True)
class Lineage:
    """What was found out on the way."""

    spec_sha256: str
    base_weights: tuple[StoredFile, ...]
    adapter: StoredFile
    max_length: int
    gpu_kernels: str | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The step whose adapter this is."""

    step: StepMetrics
    evaluation: EvaluationMetrics | None
    why: str


def passport(spec: RunSpec, lineage: Lineage, delivered: Delivered, last: StepMetrics) -> Passport:
    return Passport(
        fine_tuned_model=spec.fine_tuned_model,
        job_id=spec.job_id,
        run_id=spec.run_id,
        base_model=spec.model.id,
        base_weights=lineage.base_weights,
        initial_adapter_sha256=_sha256_of(spec.initial_adapter),
        reference=spec.reference,
        sft=spec.sft,
        training_file=_source(spec.training_file),
        validation_file=None if spec.validation_file is None else _source(spec.validation_file),
        spec_sha256=lineage.spec_sha256,
        seed=spec.seed,
        precision=spec.precision,
        quantization=spec.quantization,
        gpu_kernels=lineage.gpu_kernels,
        max_length=lineage.max_length,
        dpo=spec.dpo,
        lora=spec.lora,
        workers=spec.workers,
        steps=last.step,
        trained_tokens=last.trained_tokens,
        delivered_step=delivered.step.step,
        delivered_because=delivered.why,
        adapter=lineage.adapter,
        libraries={"python": platform.python_version(), **{name: version(name) for name in _libraries(spec)}},
    )


def _libraries(spec: RunSpec) -> tuple[str, ...]:
    return LIBRARIES if spec.quantization is None else (*LIBRARIES, "bitsandbytes")


def model_card(spec: RunSpec, delivered: Delivered, last: StepMetrics, *, max_length: int) -> str:
    dpo, lora = spec.dpo, spec.lora
    return CARD.format(
        base=spec.model.id,
        name=spec.fine_tuned_model,
        job=spec.job_id,
        beta=dpo.beta,
        loss_type=_loss(dpo),
        rate=dpo.learning_rate,
        epochs=dpo.n_epochs,
        batch=dpo.batch_size,
        length=max_length,
        r=lora.r,
        alpha=lora.alpha,
        variant="".join(f", {name}" for name, on in (("rsLoRA", lora.use_rslora), ("DoRA", lora.use_dora)) if on),
        precision=spec.precision if spec.quantization is None else f"{spec.quantization}, computed in {spec.precision}",
        reference=_describe_reference(spec),
        rows="\n".join(f"| {name} | {value:.4f} |" for name, value in _numbers(delivered).items()),
        delivered=f"{delivered.step.step}: {delivered.why}",
        steps=last.step,
        tokens=last.trained_tokens,
    )


def _describe_reference(spec: RunSpec) -> str:
    if spec.sft is None:
        return spec.reference
    return (
        f"sft: maximum likelihood on the preferred completions first, {spec.sft.n_epochs} epochs at the learning rate "
        f"{spec.sft.learning_rate}, then DPO from there; this adapter holds both"
    )


def _numbers(delivered: Delivered) -> dict[str, float]:
    step, evaluation = delivered.step, delivered.evaluation
    numbers = {
        f"training loss, step {step.step}": step.train_loss,
        f"training reward margin, step {step.step}": step.rewards_margin,
        f"training reward accuracy, step {step.step}": step.rewards_accuracy,
    }
    if evaluation is None:
        return numbers
    return numbers | {
        "validation loss": evaluation.valid_loss,
        "validation reward margin": evaluation.valid_rewards_margin,
        "validation reward accuracy": evaluation.valid_rewards_accuracy,
        "validation KL(policy, reference) a token, nats": evaluation.valid_kl,
    }


def _loss(dpo: DpoParameters) -> str:
    """The losses with their weights, and the options that are on."""
    names = [name if weight == 1 else f"{weight:g} × {name}" for name, weight in dpo.loss_weights.items()]
    options = {
        "label smoothing": dpo.label_smoothing or None,
        "divergence": None if dpo.f_divergence == "reverse_kl" else dpo.f_divergence,
        "α": dpo.f_alpha_divergence_coef if dpo.f_divergence == "alpha_divergence" else None,
        "LD-DPO α": dpo.ld_alpha,
        "WPO weighting": "on" if dpo.use_weighting else None,
        "τ": dpo.discopop_tau if "discopop" in dpo.loss_weights else None,
    }
    return ", ".join([" + ".join(names), *(f"{name} {value}" for name, value in options.items() if value is not None)])


def _source(file: PreferenceFile) -> SourceFile:
    return SourceFile(file_id=file.file_id, sha256=file.sha256)


def _sha256_of(adapter: AdapterSource | None) -> str | None:
    return None if adapter is None else adapter.sha256


CARD = """---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags: [dpo, lora, preference-tuning]
---

# {name}

A LoRA adapter for `{base}`, tuned on preference pairs by Direct Preference Optimization
([arXiv:2305.18290](https://arxiv.org/abs/2305.18290)). Made by job `{job}`; `passport.json` says from what, with
hashes.

| setting | value |
| --- | --- |
| loss | {loss_type}, beta {beta} |
| reference | {reference} |
| LoRA | r {r}, alpha {alpha}{variant} |
| precision | {precision} |
| learning rate | {rate} |
| epochs, pairs a step | {epochs}, {batch} |
| longest sequence | {length} tokens |
| steps, tokens | {steps}, {tokens} |
| adapter of step | {delivered} |

| result | value |
| --- | --- |
{rows}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("PATH_OF_{base}")
model = PeftModel.from_pretrained(base, "THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```
"""
