"""Fields of KubeRay's resources, as a JSON Schema: those that deploy/kuberay uses, and no others.

This is no copy of the CRD, which no package of an index ships: it is written by hand, in its spelling and types, and a
field that is missing here is refused though KubeRay may know it. It finds a misspelt or misplaced field, a number where
text is wanted, and the like. The manifests themselves were held against the whole CRDs of KubeRay 1.6.0 and 1.7.0, with
unknown fields refused, on 2026-11-26; do that again when a field is added here.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
NAMES: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def record(*required: str, **fields: Schema) -> Schema:
    """An object of these fields alone; a name that Python keeps for itself has `_` behind it."""
    named = {name.rstrip("_"): schema for name, schema in fields.items()}
    return {"type": "object", "properties": named, "required": list(required), "additionalProperties": False}


def several(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1}


METADATA = record("name", name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$"}, annotations=NAMES)
AMOUNTS: Schema = {"type": "object", "additionalProperties": QUANTITY}
RESOURCES = record("requests", "limits", requests=AMOUNTS, limits=AMOUNTS)
UNPRIVILEGED = record(
    "allowPrivilegeEscalation",
    "capabilities",
    allowPrivilegeEscalation={"const": False},
    capabilities=record("drop", drop={"const": ["ALL"]}),
)
USER = record(
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
    runAsNonRoot={"const": True},
    runAsUser={"type": "integer", "minimum": 1},
    runAsGroup={"type": "integer", "minimum": 1},
    fsGroup=COUNT,
    fsGroupChangePolicy={"enum": ["OnRootMismatch", "Always"]},
    seccompProfile=record("type", type={"const": "RuntimeDefault"}),
)
REFERENCE = record("name", name=TEXT, optional=FLAG)
CONTAINER = record(
    "name",
    "image",
    "resources",
    "securityContext",
    name=TEXT,
    image=TEXT,
    envFrom=several(record(configMapRef=REFERENCE, secretRef=REFERENCE)),
    ports=several(record("containerPort", name=TEXT, containerPort=COUNT)),
    resources=RESOURCES,
    securityContext=UNPRIVILEGED,
    volumeMounts=several(record("name", "mountPath", name=TEXT, mountPath=TEXT)),
)
VOLUME = record(
    "name",
    name=TEXT,
    emptyDir=record(medium={"const": "Memory"}, sizeLimit=QUANTITY),
    persistentVolumeClaim=record("claimName", claimName=TEXT),
)
TOLERATION = record(key=TEXT, operator={"enum": ["Exists", "Equal"]}, value=TEXT, effect=TEXT)
POD = record(
    "spec",
    spec=record(
        "containers",
        "securityContext",
        serviceAccountName=TEXT,
        automountServiceAccountToken=FLAG,
        securityContext=USER,
        terminationGracePeriodSeconds=COUNT,
        restartPolicy={"enum": ["Never", "OnFailure"]},
        tolerations=several(TOLERATION),
        containers=several(CONTAINER),
        volumes=several(VOLUME),
    ),
)
WORKERS = record(
    *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    labels=NAMES,
    rayStartParams=NAMES,
    template=POD,
)
CLUSTER_SPEC = record(
    *("rayVersion", "headGroupSpec", "workerGroupSpecs", "authOptions", "autoscalerOptions"),
    rayVersion=TEXT,
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=record(
        "version",
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        securityContext=UNPRIVILEGED,
        resources=RESOURCES,
    ),
    authOptions=record("mode", mode={"enum": ["token", "disabled"]}, secretName=TEXT),
    headGroupSpec=record("rayStartParams", "template", rayStartParams=NAMES, template=POD),
    workerGroupSpecs=several(WORKERS),
)
JOB_SPEC = record(
    *("entrypoint", "rayClusterSpec"),
    entrypoint=TEXT,
    backoffLimit=COUNT,
    activeDeadlineSeconds=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    submitterPodTemplate=POD,
    rayClusterSpec=CLUSTER_SPEC,
)


def resource(kind: str, spec: Schema) -> Schema:
    return record(
        *("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=METADATA,
        spec=spec,
    )


RAY_CLUSTER = resource("RayCluster", CLUSTER_SPEC)
RAY_JOB = resource("RayJob", JOB_SPEC)
