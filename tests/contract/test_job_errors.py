"""Bad jobs: each is a 400 that names the field, its value and the remedy, and nothing is left behind."""

import gzip
import json
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from schemas.ids import FileId
from service.db.tables import FileRow
from tests.contract.rows import upload
from tests.contract.server import Server

HP = "method.dpo.hyperparameters"
GUARDS = "method.dpo.guards"


def hyperparameters(**values: object) -> dict[str, Any]:
    return {"method": {"type": "dpo", "dpo": {"hyperparameters": values}}}


def dpo(**values: object) -> dict[str, Any]:
    return {"method": {"type": "dpo", "dpo": values}}


BAD_JOBS: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "tiny-lama"}, "model", 'did you mean "tiny-llama"?'),
    ({"model": "gpt-9"}, "model", "the models are large-llama, tiny-llama"),
    ({"model": "ft:tiny-llama:x::y"}, "model", "does not exist"),
    ({"model": 3}, "model", "model is 3; it should be a valid string"),
    ({"model": None}, "model", "model is null"),
    ({"training_file": "file-1"}, "training_file", 'training_file "file-1" does not exist; upload it'),
    ({"validation_file": "file-1"}, "validation_file", 'validation_file "file-1" does not exist; upload it'),
    ({"modle": "x"}, "modle", 'did you mean "model"?'),
    ({"suffix": ""}, "suffix", "at least 1 character"),
    ({"suffix": "x" * 65}, "suffix", "at most 64 characters"),
    ({"suffix": "a:b"}, "suffix", "use letters, digits and - _ . only"),
    ({"suffix": "a b"}, "suffix", "use letters, digits and - _ . only"),
    ({"suffix": "a\n"}, "suffix", "use letters, digits and - _ . only"),
    ({"seed": -1}, "seed", "greater than or equal to 0"),
    ({"seed": 2_147_483_648}, "seed", "less than or equal to 2147483647"),
    ({"seed": 1.5}, "seed", "seed is 1.5; it should be a valid integer"),
    ({"seed": "7"}, "seed", 'seed is "7"; it should be a valid integer'),
    ({"metadata": {"k" * 65: "v"}}, f"metadata.{'k' * 65}", "at most 64 characters"),
    ({"metadata": {"": "v"}}, "metadata.", "at least 1 character"),
    ({"metadata": {"k": "v" * 513}}, "metadata.k", "at most 512 characters"),
    ({"metadata": {"k": 1}}, "metadata.k", "metadata.k is 1; it should be a valid string"),
    (
        {"metadata": {str(n): "v" for n in range(17)}},
        "metadata",
        "it should have at most 16 items, not more",
    ),
    ({"metadata": ["k"]}, "metadata", "metadata is a list of 1; it should be an object"),
    ({"method": "dpo"}, "method", 'method is "dpo"; it should be an object'),
    ({"method": {"type": "supervised"}}, "method.type", '{"type": "dpo"}'),
    ({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}, "method.type", '{"type": "dpo"}'),
    ({"method": {"type": "kto"}}, "method.type", "'dpo'"),
    ({"method": {"type": "dpo", "dop": {}}}, "method.dop", 'did you mean "dpo"?'),
    ({"hyperparameters": {"n_epochs": 3}}, "hyperparameters", "move its values to method.dpo.hyperparameters"),
    ({"integrations": [{"type": "wandb"}]}, "integrations", "leave them out"),
    (hyperparameters(bata=0.1), f"{HP}.bata", 'did you mean "beta"?'),
    (hyperparameters(beta="0.1"), f"{HP}.beta", 'give a number, without quotes, or "auto"'),
    (hyperparameters(beta=True), f"{HP}.beta", 'is true; give a number or "auto"'),
    (hyperparameters(beta=None), f"{HP}.beta", 'is null; give a number or "auto"'),
    (hyperparameters(beta=[0.1]), f"{HP}.beta", 'is a list of 1; give a number or "auto"'),
    (hyperparameters(beta=0), f"{HP}.beta", "greater than 0"),
    (hyperparameters(beta=1e-30, loss_type="ipo"), f"{HP}.beta", "beta is 1e-30, by which losses divide in float32"),
    (hyperparameters(beta=2.1), f"{HP}.beta", "less than or equal to 2"),
    (hyperparameters(beta=10**400), f"{HP}.beta", "is out of range"),
    (hyperparameters(batch_size=0), f"{HP}.batch_size", "greater than or equal to 1"),
    (hyperparameters(batch_size=257), f"{HP}.batch_size", "less than or equal to 256"),
    (hyperparameters(batch_size=2.5), f"{HP}.batch_size", 'is 2.5; give a whole number or "auto"'),
    (hyperparameters(n_epochs=0), f"{HP}.n_epochs", "greater than or equal to 1"),
    (hyperparameters(n_epochs=51), f"{HP}.n_epochs", "less than or equal to 50"),
    (hyperparameters(learning_rate_multiplier=0), f"{HP}.learning_rate_multiplier", "greater than 0"),
    (hyperparameters(learning_rate_multiplier=1e6), f"{HP}.learning_rate_multiplier", "a learning rate of 1000.0"),
    (hyperparameters(learning_rate=-1), f"{HP}.learning_rate", "greater than 0"),
    (hyperparameters(learning_rate=1.5), f"{HP}.learning_rate", "less than or equal to 1"),
    (hyperparameters(loss_type="dpo"), f"{HP}.loss_type", "'sft' or 'sigmoid_norm'"),
    (hyperparameters(loss_type="sigmod"), f"{HP}.loss_type", 'is "sigmod"; did you mean "sigmoid"?'),
    (hyperparameters(loss_type=["sft"]), f"{HP}.loss_type", "is a list of 1"),
    (hyperparameters(loss_type=None), f"{HP}.loss_type", "is null"),
    (hyperparameters(loss_type={}), f"{HP}.loss_type", "at least 1 item"),
    (hyperparameters(loss_type={"sigmod": 1}), f"{HP}.loss_type.sigmod", 'did you mean "sigmoid"?'),
    (hyperparameters(loss_type={"sft": 0}), f"{HP}.loss_type.sft", "is 0; it should be greater than 0"),
    (hyperparameters(loss_type={"sft": -1}), f"{HP}.loss_type.sft", "greater than 0"),
    (hyperparameters(loss_type={"sft": "1"}), f"{HP}.loss_type.sft", 'is "1"; it should be a valid number'),
    (hyperparameters(loss_type={"sft": True}), f"{HP}.loss_type.sft", "is true; it should be a valid number"),
    (hyperparameters(loss_type={"sft": 1e300}), f"{HP}.loss_type.sft", "less than or equal to 1000000"),
    (hyperparameters(label_smoothing=0.5), f"{HP}.label_smoothing", "less than 0.5"),
    (hyperparameters(label_smoothing=0.1, loss_type="ipo"), f"{HP}.label_smoothing", "which excludes it"),
    (hyperparameters(label_smoothing=0.1, loss_type="hinge"), f"{HP}.label_smoothing", "which excludes it"),
    (hyperparameters(label_smoothing=0.1, loss_type={"sft": 1, "ipo": 1}), f"{HP}.label_smoothing", '"sft", "ipo"'),
    (hyperparameters(loss_type="exo_pair"), f"{HP}.label_smoothing", "its authors recommend 0.001"),
    (hyperparameters(loss_type={"sft": 1, "exo_pair": 1}), f"{HP}.label_smoothing", "takes its logarithm"),
    (hyperparameters(f_divergence="kl"), f"{HP}.f_divergence", "'reverse_kl', 'forward_kl'"),
    (
        hyperparameters(f_divergence="forward_kl", loss_type="bco_pair"),
        f"{HP}.f_divergence",
        'f_divergence is "forward_kl" and loss_type is "bco_pair"',
    ),
    (hyperparameters(f_divergence="forward_kl", loss_type={"sigmoid": 1, "aot": 1}), f"{HP}.f_divergence", '"aot" is'),
    (hyperparameters(f_divergence="forward_kl", loss_type="sft"), f"{HP}.f_divergence", '"sft" is defined for'),
    (hyperparameters(f_alpha_divergence_coef=0.3), f"{HP}.f_alpha_divergence_coef", 'f_divergence is "reverse_kl"'),
    (hyperparameters(f_alpha_divergence_coef="x"), f"{HP}.f_alpha_divergence_coef", "a valid number"),
    (hyperparameters(ld_alpha=1.1), f"{HP}.ld_alpha", "less than or equal to 1"),
    (hyperparameters(ld_alpha=0.5, loss_type="sft"), f"{HP}.ld_alpha", 'is 0.5 and loss_type is "sft"'),
    (hyperparameters(use_weighting=True, loss_type="aot"), f"{HP}.use_weighting", "aot sorts the pairs"),
    (hyperparameters(use_weighting=True, loss_type={"sft": 1, "aot_unpaired": 1}), f"{HP}.use_weighting", "aot sorts"),
    (hyperparameters(use_weighting=1), f"{HP}.use_weighting", "a valid boolean"),
    (hyperparameters(discopop_tau=0.05), f"{HP}.discopop_tau", 'set loss_type to "discopop"'),
    (hyperparameters(discopop_tau=0, loss_type="discopop"), f"{HP}.discopop_tau", "greater than 0"),
    (hyperparameters(discopop_tau=1e-300, loss_type="discopop"), f"{HP}.discopop_tau", "give 1e-06 or more"),
    (hyperparameters(max_length=8), f"{HP}.max_length", "greater than or equal to 16"),
    (hyperparameters(max_length=513), f"{HP}.max_length", "the model reads 512 tokens"),
    (hyperparameters(warmup_ratio=1.1), f"{HP}.warmup_ratio", "less than or equal to 1"),
    (hyperparameters(lr_scheduler="step"), f"{HP}.lr_scheduler", "'linear', 'cosine' or 'constant'"),
    (hyperparameters(weight_decay=-0.1), f"{HP}.weight_decay", "greater than or equal to 0"),
    (hyperparameters(max_grad_norm=0), f"{HP}.max_grad_norm", "greater than 0"),
    (dpo(lora={"r": 0}), "method.dpo.lora.r", "greater than or equal to 1"),
    (dpo(lora={"rank": 8}), "method.dpo.lora.rank", "the known names are"),
    (dpo(lora={"target_modules": []}), "method.dpo.lora.target_modules", "at least 1 item"),
    (dpo(lora={"target_modules": "q_proj"}), "method.dpo.lora.target_modules", "it should be a valid list"),
    (dpo(lora={"target_modules": ["q_proj", 3]}), "method.dpo.lora.target_modules.1", "a valid string"),
    (dpo(reference={"type": "none"}), "method.dpo.reference.type", "'initial', 'base' or 'sft'"),
    (dpo(reference={"n_epochs": 2}), "method.dpo.reference.n_epochs", 'set the type to "sft"'),
    (
        dpo(reference={"type": "base", "learning_rate": "auto"}),
        "method.dpo.reference.learning_rate",
        'reference.learning_rate is "auto" and reference.type is "base"',
    ),
    (dpo(reference={"type": "sft", "n_epochs": 0}), "method.dpo.reference.n_epochs", "greater than or equal to 1"),
    (dpo(reference={"type": "sft", "n_epochs": "two"}), "method.dpo.reference.n_epochs", "give a number"),
    (dpo(reference={"type": "sft", "learning_rate": 2}), "method.dpo.reference.learning_rate", "less than or equal"),
    (dpo(reference={"type": "sft", "epochs": 1}), "method.dpo.reference.epochs", 'did you mean "n_epochs"'),
    (dpo(lora={"use_dora": "yes"}), "method.dpo.lora.use_dora", "a valid boolean"),
    (dpo(quantization="int8"), "method.dpo.quantization", "'nf4'"),
    (dpo(quantization="nf4"), "method.dpo.quantization", "the model trains on CPU by the registry"),
    (
        dpo(quantization="nf4") | {"model": "large-llama", "resources": {"gpus": 0}},
        "method.dpo.quantization",
        "resources.gpus is 0: 4-bit weights need a GPU",
    ),
    (dpo(evaluation={"every_steps": 0}), "method.dpo.evaluation.every_steps", "greater than or equal to 1"),
    (dpo(precision="fp8"), "method.dpo.precision", "'fp32' or 'bf16'"),
    (dpo(guards={"max_kl": 0}), f"{GUARDS}.max_kl", "greater than 0"),
    (dpo(guards={"min_chosen_logp_ratio": 0}), f"{GUARDS}.min_chosen_logp_ratio", "less than 0"),
    (dpo(guards={"max_valid_loss_rise": -0.1}), f"{GUARDS}.max_valid_loss_rise", "greater than or equal to 0"),
    (dpo(guards={"max_kl": 1, "patience": 0}), f"{GUARDS}.patience", "greater than or equal to 1"),
    (dpo(guards={"max_kl": 1, "patience": 1.5}), f"{GUARDS}.patience", "a valid integer"),
    (dpo(guards={"max_kl": 1, "action": "halt"}), f"{GUARDS}.action", "'stop', 'pause' or 'warn'"),
    (dpo(guards={"max_kl": "0.5"}), f"{GUARDS}.max_kl", "a valid number"),
    (dpo(guards={"maxkl": 1}), f"{GUARDS}.maxkl", 'did you mean "max_kl"?'),
    (dpo(guards={"max_kl": 1}), GUARDS, "guards watch the validation file and the job has none"),
    ({"priority": 101}, "priority", "less than or equal to 100"),
    ({"priority": "high"}, "priority", 'priority is "high"; it should be a valid integer'),
    ({"resources": {"gpus": -1}}, "resources.gpus", "greater than or equal to 0"),
    ({"resources": {"gpus": 1, "workers": 2}}, "resources.workers", "there is one worker a GPU"),
    ({"resources": {"workers": 2}, "model": "large-llama"}, "resources.workers", "the model trains on 2 GPU(s)"),
    ({"resources": {"workers": 0}}, "resources.workers", "greater than or equal to 1"),
    ({"resources": {"sharding": "half"}}, "resources.sharding", "'auto', 'full' or 'none'"),
    ({"resources": {"sharding": "full"}}, "resources.sharding", "the job has one worker"),
    ({"resources": {"sharding": "full", "gpus": 1}}, "resources.sharding", "set resources.gpus to 2 or more"),
    (
        dpo(quantization="nf4") | {"model": "large-llama", "resources": {"sharding": "full"}},
        "resources.sharding",
        '"full" and quantization is "nf4"',
    ),
]


@pytest.fixture
def good_job(client: OpenAI) -> dict[str, Any]:
    return {"model": "tiny-llama", "training_file": upload(client)}


@pytest.mark.slow  # as many as there are
@pytest.mark.parametrize(("change", "param", "told"), BAD_JOBS, ids=[f"{p}: {t}" for _, p, t in BAD_JOBS])
def test_a_bad_job_is_refused(
    client: OpenAI, http: httpx2.Client, good_job: dict[str, Any], change: dict[str, Any], param: str, told: str
) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json=good_job | change)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert told in error["message"]
    assert client.fine_tuning.jobs.list().data == []


@pytest.mark.parametrize("missing", ["model", "training_file"])
def test_what_is_missing_is_named(http: httpx2.Client, good_job: dict[str, Any], missing: str) -> None:
    del good_job[missing]
    error = http.post("/v1/fine_tuning/jobs", json=good_job).json()["error"]
    assert (error["param"], error["code"]) == (missing, "missing_required_parameter")


def test_further_faults_are_named_too(http: httpx2.Client) -> None:
    error = http.post("/v1/fine_tuning/jobs", json={"seed": -1}).json()["error"]
    assert error["message"] == "model is missing; give it (also wrong: seed, training_file)"


@pytest.mark.parametrize(
    "absent",
    [
        {"hyperparameters": {}},
        {"integrations": []},
        {"method": None, "resources": None, "priority": None},
        {"method": {"type": "dpo", "dpo": None, "supervised": None}},
        {"method": {"type": "dpo", "dpo": {"hyperparameters": None}}},
        {"suffix": None, "seed": None, "metadata": None, "validation_file": None},
    ],
)
def test_empty_values_of_other_forms_are_taken(
    http: httpx2.Client, good_job: dict[str, Any], absent: dict[str, Any]
) -> None:
    assert http.post("/v1/fine_tuning/jobs", json=good_job | absent).status_code == 200


def test_every_good_hyperparameter_is_taken(http: httpx2.Client, good_job: dict[str, Any]) -> None:
    values = {
        "beta": 2,
        "batch_size": 256,
        "n_epochs": 50,
        "learning_rate_multiplier": 0.5,
        "learning_rate": "auto",
        "loss_type": "ipo",
        "max_length": 512,
        "warmup_ratio": 0,
        "lr_scheduler": "constant",
        "weight_decay": 0.1,
        "max_grad_norm": 1,
    }
    answer = http.post("/v1/fine_tuning/jobs", json=good_job | hyperparameters(**values))
    assert answer.status_code == 200
    shown = answer.json()["method"]["dpo"]["hyperparameters"]
    assert {name: shown[name] for name in values} == values


def test_the_sdk_raises_its_bad_request_error(client: OpenAI, good_job: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.fine_tuning.jobs.create(**good_job, **hyperparameters(beta=3))
    assert (raised.value.param, raised.value.type) == (f"{HP}.beta", "invalid_request_error")


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_a_results_file_cannot_be_trained_on(
    client: OpenAI, server: Server, good_job: dict[str, Any], param: str
) -> None:
    result = FileId(upload(client))
    with server.database.write() as session:
        session.get_one(FileRow, result).purpose = "fine-tune-results"
    with pytest.raises(openai.BadRequestError, match='has the purpose "fine-tune-results"') as raised:
        client.fine_tuning.jobs.create(**(good_job | {param: result}))
    assert raised.value.param == param


def test_validating_on_the_training_file_is_refused(client: OpenAI, good_job: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="validation_file is the training file"):
        client.fine_tuning.jobs.create(**good_job, validation_file=good_job["training_file"])


@pytest.mark.parametrize("guards", [{}, {"patience": 2, "action": "warn"}, {"max_kl": None}])
def test_guards_without_a_limit_are_refused(client: OpenAI, good_job: dict[str, Any], guards: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="guards has no limit to watch; give max_kl") as raised:
        client.fine_tuning.jobs.create(**good_job, validation_file=upload(client), **dpo(guards=guards))
    assert raised.value.param == GUARDS


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "empty"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b"{", "line 1 column 1"),
        (b'{"model": }', "line 1 column 11"),
        (b'{"seed": NaN}', "not valid JSON"),
        (b'{"seed": Infinity}', "not valid JSON"),
        (b'{"seed": 1e999}', "seed"),
        (b"\xff{}", "not valid JSON"),
        (b'{"seed": 1, "seed": 2}', 'duplicate key "seed"'),
        (b'{"suffix": "\\ud800"}', "not valid JSON"),
        (b'{"suffix": "\\u0000"}', "NUL"),
        (b"[" * 400_000, "recursion limit"),
        (b'{"a":' * 150_000, "recursion limit"),
        (b'{"seed": ' + b"1" * 100_000 + b"}", "out of range"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(http: httpx2.Client, body: bytes, told: str) -> None:
    answer = http.post("/v1/fine_tuning/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_refused(http: httpx2.Client, content_type: str) -> None:
    answer = http.post("/v1/fine_tuning/jobs", content=b"{}", headers={"content-type": content_type})
    assert answer.status_code == 400
    assert "send application/json" in answer.json()["error"]["message"]


def test_a_compressed_body_is_refused_as_such(http: httpx2.Client, good_job: dict[str, Any]) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = http.post("/v1/fine_tuning/jobs", content=gzip.compress(json.dumps(good_job).encode()), headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == 'The content-encoding is "gzip"; send the body as it is'


@pytest.mark.parametrize("has_length", [True, False])
def test_a_large_json_body_is_refused(http: httpx2.Client, has_length: bool) -> None:
    body = b'{"suffix": "' + b"x" * 1_000_000 + b'"}'
    content = body if has_length else iter([body[:600_000], body[600_000:]])
    answer = http.post("/v1/fine_tuning/jobs", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
