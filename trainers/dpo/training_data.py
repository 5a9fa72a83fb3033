"""The job's pairs as tokens, and what a user should know about rows that were dropped or cut."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from transformers import PreTrainedTokenizerBase

from schemas.run_record import RunEvent
from schemas.run_spec import PreferenceFile, RunSpec
from trainers.data.chat_tokens import PairTokens, TokenizedPairs, tokenize_rows
from trainers.data.preference_dataset import read_rows
from trainers.data.refused_rows import name_lines
from trainers.dpo.loss import COUPLED
from trainers.errors import InvalidTrainingFile, InvalidValidationFile, TrainerError, UnusableModel
from trainers.events import warning
from trainers.run_folder import RunFolder, read_bytes

CHARACTERS_SHOWN = 60


@dataclass(frozen=True, slots=True)
class TrainingData:
    training: list[PairTokens]
    validation: list[PairTokens]
    """Empty without a validation file."""
    warnings: list[RunEvent]


def load_training_data(
    folder: RunFolder, spec: RunSpec, tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> TrainingData:
    """Raises: InvalidTrainingFile, InvalidValidationFile, UnusableModel."""
    today = None if spec.created_at is None else datetime.fromtimestamp(spec.created_at, UTC)
    training = _load(folder, spec.training_file, tokenizer, max_length, today, InvalidTrainingFile)
    warnings = list(_warnings(training, "training_file", max_length))
    if spec.validation_file is None:
        return TrainingData(normalise_weights(training.pairs), [], warnings)
    validation = _load(folder, spec.validation_file, tokenizer, max_length, today, InvalidValidationFile)
    warnings += [*_warnings(validation, "validation_file", max_length), *_shared(training.pairs, validation.pairs)]
    return TrainingData(normalise_weights(training.pairs), normalise_weights(validation.pairs), warnings)


def normalise_weights(pairs: Sequence[PairTokens]) -> list[PairTokens]:
    """Divide the rows' weights by their mean: what counts is how they compare, not their unit."""
    largest = max(pair.weight for pair in pairs)
    # Over the largest first: a sum of weights near float's end would be infinite.
    mean = math.fsum(pair.weight / largest for pair in pairs) / len(pairs)
    return [replace(pair, weight=pair.weight / largest / mean) for pair in pairs]


def check_weights(spec: RunSpec, data: TrainingData) -> None:
    """Refuse a loss that sorts pairs over rows of different weights.

    Raises: InvalidTrainingFile, InvalidValidationFile.
    """
    sorting = [name for name in spec.dpo.loss_weights if name in COUPLED]
    if not sorting:
        return
    for pairs, error in ((data.training, InvalidTrainingFile), (data.validation, InvalidValidationFile)):
        other = next((pair for pair in pairs if pair.weight != pairs[0].weight), None)
        if other is not None:
            raise error(
                f'the loss "{sorting[0]}" sorts the pairs of a step, so that none keeps a weight of its own, but '
                f"{pairs[0].name} and {other.name} have different weights; remove weight from the rows, or take "
                "another loss_type"
            )


def check_token_ids(data: TrainingData, tokenizer: PreTrainedTokenizerBase, *, vocabulary: int) -> None:
    """Refuse tokens that the model has no embedding for, before a device does in words of its own.

    Raises: UnusableModel.
    """
    for pairs, file in ((data.training, "training_file"), (data.validation, "validation_file")):
        for pair in pairs:
            largest = max(pair.prompt + pair.chosen + pair.rejected)
            if largest >= vocabulary:
                token = tokenizer.convert_ids_to_tokens(largest)
                raise UnusableModel(
                    f'{file}, {pair.name}: the tokenizer makes "{token}" the id {largest}, but the model knows '
                    f"{vocabulary} tokens, ids 0 to {vocabulary - 1}. The token was added to the tokenizer alone: add "
                    "it to the model as well (resize_token_embeddings, then save it), or take it out of these rows"
                )


def _load(
    folder: RunFolder,
    file: PreferenceFile,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    today: datetime | None,
    error: type[TrainerError],
) -> TokenizedPairs:
    content = read_bytes(folder.resolve(file.uri))
    rows = read_rows(content, row_format=file.format, sha256=file.sha256, error=error)
    tokenized = tokenize_rows(rows, tokenizer, max_length=max_length, error=error, today=today)
    if not tokenized.pairs:
        raise error(
            f"none of the {len(tokenized.prompt_too_long)} pairs can be used: each prompt alone has "
            f"{max_length} tokens or more; raise max_length or shorten the prompts"
        )
    if len(tokenized.became_equal) == len(tokenized.pairs):
        raise error(
            f"each of the {len(tokenized.pairs)} pairs has the same tokens on both sides, so there is nothing to "
            f"learn: the sides are the same, or the same up to max_length = {max_length}, or the model's tokenizer "
            "does not know their text (its files are incomplete); correct the file, raise max_length, or copy the "
            "model anew"
        )
    return tokenized


def _warnings(tokenized: TokenizedPairs, param: str, max_length: int) -> Iterator[RunEvent]:
    if tokenized.prompt_too_long:
        yield warning(
            f"dropped:{param}",
            f"{param}: dropped {_count(tokenized.prompt_too_long, 'pair')} whose prompt alone has {max_length} tokens "
            f"(max_length) or more: {name_lines(tokenized.prompt_too_long)}",
        )
    if tokenized.prompt_lost_end:
        yield warning(
            f"prompt_end:{param}",
            f"{param}: the model's chat template ends a prompt with {_shown(tokenized.lost_end)}, but leaves that out "
            f"where an answer follows: {_count(tokenized.prompt_lost_end, 'pair')} trained without it, "
            f"{name_lines(tokenized.prompt_lost_end)}, while a model that is served by this template answers after it. "
            "Begin the answers with it, or give the model a template that keeps it",
        )
    if tokenized.answer_lost_parts:
        yield warning(
            f"answer_parts:{param}",
            f"{param}: the model's chat template leaves out parts of the answers of "
            f"{_count(tokenized.answer_lost_parts, 'pair')}, {name_lines(tokenized.answer_lost_parts)}, such as "
            f"{_shown(tokenized.lost_parts)}: they are trained without them. Give the model a template that keeps "
            "them, or answers without them",
        )
    if tokenized.prompt_lost_tools:
        yield warning(
            f"prompt_tools:{param}",
            f"{param}: the model's chat template leaves out tools, tool calls or tools' answers of the prompts of "
            f"{_count(tokenized.prompt_lost_tools, 'pair')}, {name_lines(tokenized.prompt_lost_tools)}, such as "
            f"{_shown(tokenized.lost_tools)}: both sides are trained without them. Take a model whose template "
            "renders them, or write them as text into the messages",
        )
    if tokenized.cut_completions:
        yield warning(
            f"cut:{param}",
            f"{param}: {tokenized.cut_completions} completions lost their end to max_length = {max_length}; "
            "raise it to train on all of them",
        )
    if tokenized.became_equal:
        yield warning(
            f"equal:{param}",
            f"{param}: {_count(tokenized.became_equal, 'pair')} whose chosen and rejected tokens are the same: "
            f"{name_lines(tokenized.became_equal)}",
        )


def _shared(training: Sequence[PairTokens], validation: Sequence[PairTokens]) -> Iterator[RunEvent]:
    trained = {hash((pair.prompt, pair.chosen, pair.rejected)) for pair in training}
    lines = [pair.line for pair in validation if hash((pair.prompt, pair.chosen, pair.rejected)) in trained]
    if lines:
        yield warning(
            "shared:validation_file",
            f"validation_file: {_count(lines, 'pair')} of {len(validation)} are pairs of the training file, too: "
            f"{name_lines(lines)}. What valid_* and guards tell of them says nothing of pairs that are not trained on",
        )


def _count(lines: Sequence[int], noun: str) -> str:
    return f"{len(lines)} {noun}{'' if len(lines) == 1 else 's'}"


def _shown(text: str) -> str:
    """Return it quoted, line ends as \\n, and no more than its beginning."""
    return json.dumps(text[:CHARACTERS_SHOWN], ensure_ascii=False) + ("…" if len(text) > CHARACTERS_SHOWN else "")
