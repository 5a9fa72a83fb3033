"""Load the adapter with plain PEFT and compare the model before and after, on answers and on held-out pairs."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

MAX_NEW_TOKENS = 48

# P = prompt tokens, T = prompt and answer tokens, V = vocabulary


@dataclass(frozen=True, slots=True)
class Preference:
    """How a model ranks the held-out pairs, by log-probability of the answers."""

    accuracy: float
    """Share of pairs whose chosen answer is likelier per token than the rejected one."""
    margins: list[float]
    """log p(chosen) - log p(rejected) of each pair, in nats."""

    @property
    def margin(self) -> float:
        return mean(self.margins)


@dataclass(frozen=True, slots=True)
class Answers:
    prompt: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Comparison:
    answers: list[Answers]
    before: Preference
    after: Preference

    @property
    def gains(self) -> list[float]:
        """What each pair's margin has gained over the reference, the model before: DPO's reward margin over beta."""
        return [after - before for before, after in zip(self.before.margins, self.after.margins, strict=True)]


def compare(base_folder: Path, adapter_folder: Path, validation: Path, *, prompts: list[str]) -> Comparison:
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # PEFT and transformers among themselves
    tokenizer = AutoTokenizer.from_pretrained(adapter_folder)
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(adapter_folder)).eval()
    pairs = [json.loads(line) for line in validation.read_text(encoding="utf-8").splitlines()]
    after = _rank(model, tokenizer, pairs)
    answers_after = [_answer(model, tokenizer, prompt) for prompt in prompts]
    with model.disable_adapter():
        before = _rank(model, tokenizer, pairs)
        answers_before = [_answer(model, tokenizer, prompt) for prompt in prompts]
    answers = [Answers(*texts) for texts in zip(prompts, answers_before, answers_after, strict=True)]
    return Comparison(answers, before, after)


@torch.inference_mode()
def _answer(model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    ids_1P = _token_ids(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)
    output = model.generate(
        input_ids=ids_1P, attention_mask=torch.ones_like(ids_1P), max_new_tokens=MAX_NEW_TOKENS, do_sample=False
    )
    return str(tokenizer.decode(output[0, ids_1P.shape[1] :], skip_special_tokens=True)).strip()


def _rank(model: PeftModel, tokenizer: PreTrainedTokenizerBase, pairs: list[dict[str, Any]]) -> Preference:
    wins, margins = 0, []
    for pair in pairs:
        prompt = pair["input"]["messages"]
        chosen, chosen_tokens = _log_prob(model, tokenizer, prompt, pair["preferred_output"])
        rejected, rejected_tokens = _log_prob(model, tokenizer, prompt, pair["non_preferred_output"])
        wins += chosen / chosen_tokens > rejected / rejected_tokens
        margins.append(chosen - rejected)
    return Preference(accuracy=wins / len(pairs), margins=margins)


@torch.inference_mode()
def _log_prob(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompt: list[Any], answer: list[Any]
) -> tuple[float, int]:
    """Log p(answer | prompt) in nats, and the answer's tokens."""
    prompt_tokens = _token_ids(tokenizer, prompt, add_generation_prompt=True).shape[1]
    ids_1T = _token_ids(tokenizer, prompt + answer, add_generation_prompt=False)
    log_probs_TV = model(ids_1T).logits[0, :-1].log_softmax(-1)  # position t predicts token t + 1
    answer_log_probs = log_probs_TV.gather(-1, ids_1T[0, 1:, None])[prompt_tokens - 1 :]
    return float(answer_log_probs.sum()), answer_log_probs.numel()


def _token_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Any], *, add_generation_prompt: bool) -> torch.Tensor:
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, tokenize=False)
    return cast(torch.Tensor, tokenizer(str(text), add_special_tokens=False, return_tensors="pt")["input_ids"])
