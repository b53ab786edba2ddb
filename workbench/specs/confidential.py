"""What must never be written down: values of secret environment variables, and what looks like a credential.

The shapes: credentials in a URL (RFC 3986, 3.2.1), signed and keyed queries, AWS access key ids (IAM user guide,
"unique identifiers": AKIA, ASIA), tokens of Hugging Face (hf_) and GitHub (ghp_ and its kin), `api_key=...`.
"""

from __future__ import annotations

import os
import re

HIDDEN = "***"
_LEAST_LETTERS = 8
"""A shorter value is no secret, and would hide ordinary words; a guess."""
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(?:_(?!PATH|FILE|DIR)|$)", re.I
)
_SHAPES = (
    (re.compile(r"(?<=://)[^/\s'\"]+@"), f"{HIDDEN}@"),
    (
        re.compile(r"([?&](?:access_?token|token|api_?key|key|sig|signature|password|x-amz-[\w-]+)=)[^&\s'\"]+", re.I),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"((?:api_?key|access_?key|secret|password|token)\w*\s*=\s*['\"]?)[^\s'\"]+", re.I), rf"\1{HIDDEN}"),
    (re.compile(r"(authorization['\"]?\s*[:=]\s*['\"]?)(?:\w+\s+)?[^\s'\"]+", re.I), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:hf_\w{30,}|gh[pousr]_\w{36,}|github_pat_\w{22,}|(?:AKIA|ASIA)[0-9A-Z]{16})\b"), HIDDEN),
)


def without_secrets(text: str) -> str:
    """Return a text with every secret in it replaced by `***`.

    Args:
        text: What would be shown or written.
    """
    for value in _secret_values():
        text = text.replace(value, HIDDEN)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def _secret_values() -> list[str]:
    """Return the values of this process's secret environment variables, the longest first."""
    found = {value.strip() for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    return sorted((value for value in found if len(value) >= _LEAST_LETTERS), key=len, reverse=True)
