"""Machines of a Ray cluster: the resources that they have, those about to leave, and the wait for a first worker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from xdub.errors import UserError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PATIENCE_SECONDS = 50.0
"""Time without a worker after which a line names the resources that its group needs."""


def draining_nodes() -> set[str]:
    """Return the ids of machines that are about to leave, such as reclaimed spot instances."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    nodes = [*status.active_nodes, *status.idle_nodes]
    return {node.node_id for node in nodes if node.node_id and node.node_status == "DRAINING"}


def autoscaler_limits() -> dict[str, float]:
    """Return the most of each resource that the cluster's autoscaler may start; {} without an autoscaler.

    Ray has no public access to these limits, so this one place uses a private function of Ray 2.56 to 2.60.
    """
    import ray

    try:
        return ray._private.state.state.get_max_resources_from_cluster_config() or {}
    except AttributeError as error:
        raise RuntimeError(
            f"Ray {ray.__version__} keeps its autoscaler's limits elsewhere than Ray 2.56 to 2.60; install one of those"
        ) from error


def wait_for_worker(
    group: str,
    needs: Mapping[str, float],
    *,
    variables: Mapping[str, str] | None = None,
    for_machines: bool = False,
) -> None:
    """Wait until a process of Ray runs with the resources that a worker of the group needs.

    The process runs an empty task and then serves the group, so the check costs little. A cluster may be busy, and an
    autoscaler may add a machine, so the wait has no end, and a line names its reason.

    Args:
        group: name of the workers in messages, such as "pairs".
        needs: Ray resources of one worker, with the keys CPU and GPU.
        variables: environment of the process. Ray starts a process with variables in another way, which Ray Train
            uses, so a start without them proves nothing for training.
        for_machines: wait also where no machine has the resources; False: return, because the group prints such waits.

    Raises:
        UserError: a machine has the resources free and starts no process.
    """
    import ray

    if not for_machines and not _fits(needs):
        return
    others = {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU")}
    trial = ray.remote(num_cpus=needs.get("CPU", 0), num_gpus=needs.get("GPU", 0), resources=others)(_nothing)
    environment = {"env_vars": dict(variables)} if variables else None
    task = trial.options(runtime_env=environment, max_retries=0).remote()
    if ray.wait([task], timeout=PATIENCE_SECONDS)[0]:
        try:
            ray.get(task)
        except ray.exceptions.RuntimeEnvSetupError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{group}: Ray cannot prepare the environment of its workers ({reason})"
            ) from error
        except ray.exceptions.RayError:
            pass  # the group handles workers that die
        return
    free, fits = ray.available_resources(), _fits(needs)
    state = f"{group}: no worker has started in {PATIENCE_SECONDS:g} s; a worker needs {resource_list(needs)}"
    if fits and _covers(free, needs):
        ray.cancel(task, force=True)
        raise UserError(
            f"{state}, and this Ray has that much free, so it cannot start processes: see raylet.out in the folder "
            f"logs of Ray's session (Python is {sys.executable})"
        )
    cause = (
        "other work to end"
        if fits
        else "a machine that offers it; start one, or use fewer or smaller workers"
    )
    everything = resource_list(ray.cluster_resources())
    print(f"{state}, of {everything} are free {resource_list(free)}; waiting for {cause}", file=sys.stderr)
    ray.wait([task], timeout=None)


def run_on_worker(
    group: str,
    needs: Mapping[str, float],
    function: Callable[Arguments, Result],
    *args: Arguments.args,
    **options: Arguments.kwargs,
) -> Result:
    """Run a function once in a process of Ray with the resources that a worker of the group needs; return its result.

    Wait for a machine as `wait_for_worker` does. Raise the function's own error, or UserError if its process dies.
    """
    import ray

    wait_for_worker(group, needs, for_machines=True)
    others = {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU")}
    remote = ray.remote(
        num_cpus=needs.get("CPU", 0), num_gpus=needs.get("GPU", 0), resources=others, max_retries=0
    )
    try:
        return ray.get(remote(function).remote(*args, **options))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{group}: the worker died ({reason})") from error


def _fits(needs: Mapping[str, float]) -> bool:
    """Return True if a machine has the resources, free or not."""
    import ray

    return any(node["Alive"] and _covers(node["Resources"], needs) for node in ray.nodes())


def _nothing() -> None:
    """Do nothing in a worker of Ray."""


def _covers(resources: Mapping[str, float], needs: Mapping[str, float]) -> bool:
    """Return True if the resources suffice."""
    return all(resources.get(name, 0) >= amount for name, amount in needs.items())


def resource_list(resources: Mapping[str, float]) -> str:
    """List resources that a user can request, such as "2 CPU, 1 GPU"."""
    amounts = {
        name: amount for name, amount in resources.items() if not name.startswith(("node:", "object_store"))
    }
    amounts.pop("memory", None)
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if amount) or "nothing"
