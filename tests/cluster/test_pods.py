"""Tests of the pods: they are isolated from their machine, have limits, and cannot be reached from outside."""

from __future__ import annotations

from typing import Any


def containers(pods) -> list[tuple[str, dict[str, Any]]]:
    """List all containers of the pods, each with its path."""
    return [
        (f"{path}/{each['name']}", each)
        for path, pod in pods.items()
        for each in [*pod["containers"], *pod.get("initContainers", [])]
    ]


def test_no_pod_shares_anything_with_its_machine(pods):
    for path, pod in pods.items():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), path
        assert not any("hostPath" in volume for volume in pod.get("volumes", [])), path
        assert not any(
            "hostPort" in port for _, each in containers({path: pod}) for port in each.get("ports", [])
        )


def test_no_pod_runs_as_root_or_can_become_root(pods):
    for path, pod in pods.items():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0, path
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, path
    for path, each in containers(pods):
        context = each["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["privileged"] is False, path
        assert context["capabilities"] == {"drop": ["ALL"]}, path


def test_every_container_has_requests_and_limits_and_equal_gpus_in_both(pods):
    for path, each in containers(pods):
        requests, limits = each["resources"]["requests"], each["resources"]["limits"]
        assert {"cpu", "memory"} <= set(requests) & set(limits), path
        assert requests.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu"), path


def test_only_the_head_may_call_kubernetes(pods):
    # The head's autoscaler uses the operator's account.
    free = {path for path, pod in pods.items() if pod.get("automountServiceAccountToken", True)}
    assert free == {path for path in pods if "headGroupSpec" in path} and len(free) == 2


def test_ray_pods_have_shared_memory_and_the_shared_disk(pods):
    for path, pod in pods.items():
        if "GroupSpec" in path:
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert volumes["shm"]["emptyDir"]["medium"] == "Memory", path
            assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == "xdub-shared"
            mounted = {each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
            assert mounted == {"/shared", "/dev/shm"}, path


def test_passwords_in_the_environment_are_references_to_secrets(pods):
    for path, each in containers(pods):
        for variable in each.get("env", []):
            secret = any(word in variable["name"] for word in ("PASSWORD", "SECRET", "KEY", "TOKEN"))
            assert not secret or "secretKeyRef" in variable["valueFrom"], f"{path}: {variable['name']}"


def test_services_have_addresses_inside_the_cluster_only(documents):
    services = [each for (kind, _), each in documents.items() if kind == "Service"]
    assert services and all(each["spec"]["type"] == "ClusterIP" for each in services)
    assert not any(kind in ("Ingress", "Gateway", "HTTPRoute") for kind, _ in documents)
    for kind, _ in documents:
        if kind == "RayCluster":
            head = documents[(kind, "xdub")]["spec"]["headGroupSpec"]
            assert head["serviceType"] == "ClusterIP" and not head.get("enableIngress")


def test_only_the_operator_and_prometheus_reach_the_pods_from_other_namespaces(documents):
    policies = {name: each["spec"] for (kind, name), each in documents.items() if kind == "NetworkPolicy"}
    assert policies["deny-ingress"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    outside = {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], rule["ports"][0]["port"])
        for policy in policies.values()
        for rule in policy.get("ingress", [])
        for peer in rule["from"]
        if "namespaceSelector" in peer or "ipBlock" in peer
    }
    assert outside == {("kuberay-operator", 8265), ("monitoring", 8080)}
    # Each pod is in one of the groups that the policies select.
    parts = {policy["podSelector"].get("matchLabels", {}).get("xdub.io/part") for policy in policies.values()}
    assert parts == {None, "ray", "mlflow", "mlflow-postgres"}


def test_mlflow_checks_hosts_and_requires_a_login(documents, pods):
    (command,) = (each["command"] for path, each in containers(pods) if path.endswith("/mlflow"))
    assert "--app-name=basic-auth" in command
    (hosts,) = (each.partition("=")[2] for each in command if each.startswith("--allowed-hosts="))
    assert "*" not in hosts and "mlflow:5000" in hosts.split(",")
    uri = documents[("ConfigMap", "xdub-mlflow")]["data"]["uri"]
    assert uri.removeprefix("http://") in hosts.split(",")
