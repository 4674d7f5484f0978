"""Register trained weights in MLflow by their address; the weights themselves are not uploaded."""

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
    """Register the weights at ``source`` (a URI) as a new version of the model ``name``, unless they are registered.

    ``tags["sha256"]`` identifies weights: equal weights of one run are registered once. ``remote``: the store is
    a server. No alias is set: MLflow resolves `models:/NAME/latest` by itself, and the user chooses a champion.
    """
    _create_registered_model(client, name)
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if any(version.tags.get("sha256") == tags["sha256"] for version in versions):
        return
    model_id = _logged_model(client, run_id, experiment_id, name, source, params, tags)
    # A server refuses a path of its clients' disks as a source, but accepts a logged model, which names the path.
    address = f"models:/{model_id}" if remote else source
    client.create_model_version(
        name, address, run_id=run_id, tags=tags | {"source": source}, model_id=model_id
    )


def _create_registered_model(client: Any, name: str) -> None:
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
    """Return the id of the run's logged model with these weights.

    The model may exist already, created by an attempt that failed half-way.
    """
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
