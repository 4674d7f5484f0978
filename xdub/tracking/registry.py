"""Trained weights in MLflow's registry, by their address: nothing is uploaded, however large they are."""

from __future__ import annotations

from typing import Any


def register_model(
    client: Any,
    run_id: str,
    experiment_id: str,
    *,
    name: str,
    source: str,
    params: dict[str, str],
    tags: dict[str, str],
    remote: bool,
) -> None:
    """A new version of the registered model ``name`` for the weights at ``source`` (a URI), unless it is there.

    ``tags["sha256"]`` decides: the same weights of the same run are registered once. ``remote``: the store is a server.
    No alias is set. MLflow itself resolves `models:/NAME/latest`, and what deserves to be the champion is yours to say.
    """
    _make_registered_model(client, name)
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if any(version.tags.get("sha256") == tags["sha256"] for version in known):
        return
    model_id = _logged_model(client, run_id, experiment_id, name, source, params, tags)
    # A server takes no path of its clients' disks as a source; the logged model, which it holds itself, names it.
    where = f"models:/{model_id}" if remote else source
    client.create_model_version(name, where, run_id=run_id, tags=tags | {"source": source}, model_id=model_id)


def _make_registered_model(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise


def _logged_model(
    client: Any,
    run_id: str,
    experiment_id: str,
    name: str,
    source: str,
    params: dict[str, str],
    tags: dict[str, str],
) -> str:
    """Id of the run's model with these weights. An attempt that failed half-way may have made it already."""
    for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if model.tags.get("sha256") == tags["sha256"]:
            break
    else:
        external = tags | {"source": source, "mlflow.model.isExternal": "true"}
        model = client.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, params=params, tags=external
        )
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id
