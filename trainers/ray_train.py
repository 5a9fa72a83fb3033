"""The driver that Ray Jobs runs: `python -m trainers.ray_train RUN_ID`, the run folder in `DPO_RUN_FOLDER_URI`.

One worker runs here in the driver, which holds its GPU: no controller, no group to start, nothing of Ray to import.
More workers are a Ray Train group that restarts from the run's last checkpoint when one dies. The loop is the same,
`trainers.entrypoint.run`, and so are the exit codes of `python -m trainers`, but for 70 where no outcome was left.
"""

import logging
import os
import sys
from contextlib import suppress

from schemas.run_layout import OUTCOME, SPEC, STOP
from schemas.run_spec import RunSpec
from trainers.errors import RunStopped
from trainers.exit_codes import EXIT_NO_OUTCOME, EXIT_STOPPED, exit_code_of
from trainers.file_systems import locate
from trainers.imports import no_garbage_collection
from trainers.logs import configure_logging, log_event, name_run
from trainers.run_folder import RunFolder
from trainers.spec_file import read_spec
from trainers.stop_signal import mark_stop_on_sigterm

RUN_FOLDER_VARIABLE = "DPO_RUN_FOLDER_URI"
THREADS_VARIABLE = "DPO_CPU_THREADS"
"""Of the cluster's nodes, where an operator wants a CPU run to use fewer threads than there are cores."""
GROUP_RESTARTS = 3
"""Of a worker group within one run; after that the service's own attempts go on."""
QUIET_RAY_TRAIN = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}

log = logging.getLogger("trainers")


def main(arguments: list[str]) -> int:
    """Train; returns the exit code, 0 only with an outcome."""
    configure_logging()
    return exit_code_of(lambda: _drive(arguments[0], RunFolder(os.environ[RUN_FOLDER_VARIABLE])))


def _drive(run_id: str, folder: RunFolder) -> int:
    """Raises: RunStopped; UnreadableSpec; anything that another attempt may cure."""
    spec = read_spec(folder)
    name_run(spec)
    if spec.run_id != run_id:
        told = f"{folder.uri}/{SPEC} is run {spec.run_id}'s, not {run_id}'s"
        log_event(log, "run_refused", level=logging.ERROR, message=told)
        return EXIT_NO_OUTCOME
    if spec.workers == 1 and spec.gpus_per_worker == 0:
        _choose_threads()
    os.environ.update(QUIET_RAY_TRAIN)
    if spec.workers == 1:
        train_worker({"run_folder_uri": folder.uri})
    else:
        _fit(folder.uri, spec)
    if folder.exists(OUTCOME):
        return 0
    return EXIT_STOPPED if folder.exists(STOP) else EXIT_NO_OUTCOME


def _choose_threads() -> None:
    """Ray set one thread for this job's one booked core; a CPU run is alone on its machine and uses all of them."""
    threads = os.environ.get(THREADS_VARIABLE)
    if threads is None:
        os.environ.pop("OMP_NUM_THREADS", None)
    else:
        os.environ["OMP_NUM_THREADS"] = threads


def _fit(run_folder_uri: str, spec: RunSpec) -> None:
    # Imported here: Ray and torch read their environment at import.
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    _join_cluster()
    mark_stop_on_sigterm(RunFolder(run_folder_uri))
    # Every node must reach Ray Train's own folder; what it keeps there is not ours and is thrown away.
    files, storage = locate(RunFolder(run_folder_uri).resolve("ray_train"))
    try:
        trainer = TorchTrainer(
            train_worker if spec.gpus_per_worker else train_on_share_of_cores,
            train_loop_config={"run_folder_uri": run_folder_uri},
            torch_config=TorchConfig(backend="nccl" if spec.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=spec.workers,
                use_gpu=spec.gpus_per_worker > 0,
                # A core each, however many its node has: what else is booked there, or how unlike the nodes are, must
                # not hold a group back for ever.
                resources_per_worker={"CPU": 1, "GPU": spec.gpus_per_worker} if spec.gpus_per_worker else {"CPU": 1},
                placement_strategy="PACK" if spec.gpus_per_worker else "SPREAD",
            ),
            run_config=RunConfig(
                name=spec.run_id,
                storage_path=storage,
                storage_filesystem=files,
                failure_config=FailureConfig(max_failures=GROUP_RESTARTS),
            ),
        )
        trainer.fit()
    finally:
        with suppress(OSError):
            files.delete_dir(storage)


def train_worker(config: dict[str, str]) -> None:
    """The loop on one worker."""
    with no_garbage_collection():
        from trainers.entrypoint import run

    configure_logging()
    try:
        run(config["run_folder_uri"])
    except RunStopped:
        if not RunFolder(config["run_folder_uri"]).exists(STOP):
            raise
        # What a worker of a group raises, Ray Train takes for a failure and starts the group again.


def train_on_share_of_cores(config: dict[str, str]) -> None:
    """The loop on one worker of a group on CPUs: those of a node share its cores.

    Ray set one thread for the one core that each has booked.
    """
    import ray
    import torch

    here = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    cores = next(node["Resources"]["CPU"] for node in nodes if node["NodeID"] == here)
    threads = int(os.environ.get(THREADS_VARIABLE, cores)) // int(os.environ["LOCAL_WORLD_SIZE"])
    torch.set_num_threads(max(1, threads))
    train_worker(config)


def _join_cluster() -> None:
    """Here and not within `fit`, because it takes SIGTERM for itself."""
    import ray

    ray.init(address="auto", log_to_driver=True, logging_level=logging.WARNING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
