"""Keeps passwords and signatures in URIs and in the environment out of output, logs, pages and tags."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

from xlt_ray.errors import UserError

_SECRETS = (
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
)
_LEAST = 4  # characters: a shorter word would be struck out of words that it is no secret in
_USER_INFO = re.compile(
    r"((?<![\w+.-])[\w+.-]+://)"  # from its first letter alone: else each letter of a long word may begin a scheme
    r"(?:[^/\s'\"]*|[^/\s'\"@:]+:(?!\d+/)[^\s'\"]{0,2000})@"  # the keys of AWS have slashes, which a port has not
)
_SIGNED = re.compile(
    r"([?&](?:x-(?:amz|goog)-(?:credential|security-token|signature)|awsaccesskeyid|googleaccessid|signature|sig|"
    r"(?:access_)?token|(?:api_?)?key|password|secret)=)[^&\s'\"]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text without users and passwords of URIs (before the @), signatures, and secrets of the environment."""
    for secret in sorted(_known(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SIGNED.sub(r"\1***", _USER_INFO.sub(r"\1***@", text))


def _known() -> Iterator[str]:
    values = [os.environ.get(name, "") for name in _SECRETS]
    user_info, at, _ = os.environ.get("MLFLOW_TRACKING_URI", "").partition("://")[2].rpartition("@")
    if at:
        values += [user_info, user_info.partition(":")[2]]
    yield from (value for value in values if len(value) >= _LEAST)


def refuse_passwords(settings: Any, prefix: str = "--") -> None:
    """Refuse a URI with a password among the settings of a job, because settings go into artifacts, runs and commands.

    Raises:
        UserError: naming the setting, not its value.
    """
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            refuse_passwords(value, f"{name}.")
        elif isinstance(value, str) and _USER_INFO.search(value):
            raise UserError(
                f"{name} holds a user or password, which every result would show; remove the part before the @ and set "
                "it in the environment, for S3 as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
