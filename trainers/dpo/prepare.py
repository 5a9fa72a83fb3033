"""Everything that the loop needs, from the run spec: model, adapter, pairs, plan, layout, optimizer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch.optim import AdamW
from transformers import PreTrainedConfig

from schemas.run_record import RunEvent
from schemas.run_spec import AdapterSource, LoraParameters, RunSpec
from trainers.data.chat_tokens import PairTokens
from trainers.distributed import Workers, failing_together
from trainers.dpo.layout import ChosenLayout, choose_layout
from trainers.dpo.objective import Objective
from trainers.dpo.plan import StepPlan, longest_pass
from trainers.dpo.training_data import check_token_ids, check_weights, load_training_data
from trainers.errors import UnusableAdapter
from trainers.events import message, stamped_now, warning
from trainers.free_memory import free_bytes
from trainers.models.base_placement import BasePlacement
from trainers.models.base_size import too_large_is_told
from trainers.models.causal_lm import load_causal_lm, load_tokenizer, longest_sequence, vocabulary_size
from trainers.models.checkpointing import checkpoint_layers
from trainers.models.fused_lora import fuse_lora_layers
from trainers.models.gpu_kernels import GpuKernels, apply_gpu_kernels
from trainers.models.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, InitialAdapter, Policy, add_lora, read_adapter
from trainers.models.memory_plan import MemoryPlan, estimate_activations, plan_memory
from trainers.models.sharded_base import base_bytes, shard_base
from trainers.results import tokenizer_files
from trainers.run_folder import RunFolder, read_bytes

TOKENS_A_PASS = {"cpu": 1024, "cuda": 8192}
"""Where memory allows: more would be no faster."""
CHECKPOINTED = "Gradient checkpointing is on, which is slower: without it the longest pair would not fit into memory"


@dataclass(frozen=True, slots=True)
class Prepared:
    objective: Objective
    optimizer: AdamW
    plan: StepPlan
    pairs: list[PairTokens]
    validation: list[PairTokens]
    tokenizer_files: dict[str, bytes]
    """Go with the adapter."""
    max_length: int
    """What the job asks for, or less where the model reads less."""
    tokens_a_pass: int
    """At most; see `TokenBudget`."""
    lora: LoraParameters
    """As trained: an initial adapter keeps its own shape."""
    gpu_kernels: str | None
    """Whose compute what lies between a GPU's products; None: transformers' own."""
    opening: list[RunEvent]
    """What to tell before the first step."""


def prepare(folder: RunFolder, spec: RunSpec, model_folder: Path, workers: Workers) -> Prepared:
    """Raises: TrainerError, on every worker, for what the user or the registry's keeper must change."""
    device, placement = workers.device, BasePlacement.of(spec, workers)
    fits = partial(too_large_is_told, model_folder, spec, device=device, free_bytes=placement.free_bytes)
    with failing_together(workers):
        tokenizer = load_tokenizer(model_folder)
        carried = tokenizer_files(tokenizer)  # now: what cannot be saved is no surprise at the end of days
        with fits():
            base = load_causal_lm(
                model_folder, precision=spec.precision, device=placement.load_to, quantization=spec.quantization
            )
        limit = longest_sequence(base)
        max_length = spec.dpo.max_length if limit is None else min(limit.tokens, spec.dpo.max_length)
        data = load_training_data(folder, spec, tokenizer, max_length=max_length)
        check_weights(spec, data)
        check_token_ids(data, tokenizer, vocabulary=vocabulary_size(base))
    pairs = [*data.training, *data.validation]
    with failing_together(workers), fits():
        shards = placement.decide(base, longest_pair=max(pair.packed_length for pair in pairs))
        kernels = apply_gpu_kernels(base, device)
    with failing_together(workers), fits():
        initial = _read_initial(folder, spec.initial_adapter)
        policy = add_lora(base, spec.lora, initial=initial, reference=spec.reference, seed=spec.seed)
        fuse_lora_layers(policy.model)
    with failing_together(workers), fits():
        if shards:
            policy = replace(policy, sharded=shard_base(base, workers))
    plan = StepPlan(len(data.training), spec.dpo.batch_size, spec.dpo.n_epochs, spec.seed)
    with failing_together(workers):
        chosen = choose_layout(policy, pairs, device=device)
    opening = [_started(spec, policy, plan, len(data.validation)), *map(stamped_now, data.warnings)]
    if shards:
        opening.append(_told_shares(policy, workers))
    opening += _what_is_slower(chosen, kernels)
    opening += _what_trl_adds(base.config)
    memory = _plan_memory(policy, chosen, pairs, workers, kernels)
    if memory.is_checkpointed and checkpoint_layers(policy):
        opening.append(message("checkpointing", CHECKPOINTED))
    if initial is not None and (differences := initial.differences(spec.lora)):
        told = "; ".join(differences)
        opening.append(warning("lora", f"The initial adapter keeps its own shape, which is not the job's: {told}"))
    if limit is not None and max_length < spec.dpo.max_length:
        opening.append(warning("max_length", f"max_length is {max_length}, {limit.why}"))
    optimizer = AdamW(policy.parameters(), lr=0.0, weight_decay=spec.dpo.weight_decay, fused=True)
    objective = Objective(policy, chosen.layout, spec.dpo, device)
    return Prepared(
        objective,
        optimizer,
        plan,
        data.training,
        data.validation,
        carried,
        max_length,
        memory.tokens_a_pass,
        spec.lora if initial is None else initial.parameters(dropout=spec.lora.dropout),
        kernels.name,
        opening,
    )


def _what_is_slower(chosen: ChosenLayout, kernels: GpuKernels) -> Iterator[RunEvent]:
    if chosen.why_padded is not None:
        yield message("padded", f"Training on padded rows, which is slower: {chosen.why_padded}")
    if kernels.why_not is not None:
        yield message("kernels", f"Training without Liger's kernels, which is slower: {kernels.why_not}")


def _what_trl_adds(config: PreTrainedConfig) -> Iterator[RunEvent]:
    text = config.get_text_config()
    coefficient = getattr(text, "router_aux_loss_coef", 0.0)
    if hasattr(text, "output_router_logits") and coefficient:
        yield message(
            "experts",
            "The model's experts are trained without the auxiliary load-balancing loss, which TRL by default adds "
            f"{coefficient:g} times (the model's router_aux_loss_coef)",
        )


def _plan_memory(
    policy: Policy, chosen: ChosenLayout, pairs: Sequence[PairTokens], workers: Workers, kernels: GpuKernels
) -> MemoryPlan:
    base, device, pads = policy.causal_lm(), workers.device, chosen.layout.pads
    activations = estimate_activations(
        base.config,
        dtype_bytes=base.dtype.itemsize,
        is_padded=pads,
        has_gpu_kernels=kernels.name is not None,
        adapted_bytes=policy.adapted_parameter_bytes(),
    )
    plan = plan_memory(
        activations,
        longest_pair=longest_pass(pairs, pads=pads),
        most_tokens=TOKENS_A_PASS[device.type],
        free_bytes=free_bytes(device),
    )
    if policy.sharded is None:
        return plan
    # Passes of one kind, so that their gathers are the same.
    return replace(plan, is_checkpointed=not workers.all(not plan.is_checkpointed))


def _told_shares(policy: Policy, workers: Workers) -> RunEvent:
    held, whole = base_bytes(policy.causal_lm())
    return message(
        "sharded",
        f"The base model is sharded over {workers.world_size} workers: between two passes each holds "
        f"{held / 1e6:,.2f} of its {whole / 1e6:,.2f} MB",
    )


def _read_initial(folder: RunFolder, source: AdapterSource | None) -> InitialAdapter | None:
    if source is None:
        return None
    uri = folder.resolve(source.uri).rstrip("/")
    try:
        config, weights = read_bytes(f"{uri}/{ADAPTER_CONFIG}"), read_bytes(f"{uri}/{ADAPTER_WEIGHTS}")
    except FileNotFoundError as reason:
        raise UnusableAdapter("the initial adapter's files are gone; was its model deleted?") from reason
    return read_adapter(config, weights, sha256=source.sha256)


def _started(spec: RunSpec, policy: Policy, plan: StepPlan, held_out: int) -> RunEvent:
    learning = sum(parameter.numel() for parameter in policy.parameters())
    held_out_text = f" ({held_out} held out)" if held_out else ""
    match spec.initial_adapter, spec.reference:
        case _, "sft":
            reference = "this model after SFT on the preferred completions"
        case None, _:
            reference = "the base model"
        case _, "initial":
            reference = "a frozen copy of the initial adapter"
        case _, _:
            reference = "the base model, without the initial adapter"
    return message(
        "started",
        f"Training on {plan.pairs} pairs{held_out_text} for {plan.total_steps} steps: {spec.model.id}, "
        f"{learning:,} LoRA parameters, reference: {reference}",
    )
