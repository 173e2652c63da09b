"""What must not leave this machine: keys, tokens, passwords, and where you live on it.

Known kinds are found by Yelp's detect-secrets and by a few patterns for those it lacks; others by
what stands before them (`password = ...`) or by the values of environment variables.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The detectors of detect-secrets that look for a form. Left out: those that guess by entropy or by
# IP address (digests and version numbers have both), and Telegram's, which takes `size:sha1` for a
# token (ours is below).
_DETECTORS = {
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector",
    "openai": "OpenAIDetector",
    "private_key": "PrivateKeyDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "twilio": "TwilioKeyDetector",
}
_FORMS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}",
    "an API key": r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
    "a Google API key": r"\bAIza[\w-]{35}",
    "a Google OAuth secret": r"\bGOCSPX-[\w-]{20,}|\bya29\.[\w-]{20,}|\b1//0[\w-]{30,}",
    "a Slack token": r"\b(?:xox[a-z](?:\.xox[a-z])?|xapp)-[\w-]{10,}",
    "a webhook's address": r"(?:hooks\.slack\.com/(?:services|workflows)|discord(?:app)?\.com/api/"
    r"webhooks|\.webhook\.office\.com/webhookb2)/[\w/@-]{20,}",
    "a Stripe key": r"\b(?:[srp]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,}",
    "an npm token": r"\bnpm_[A-Za-z0-9]{36}",
    "a PyPI token": r"\bpypi-[\w-]{50,}",
    "a Telegram token": r"(?<![\w-])\d{8,10}:AA[\w-]{33}(?![\w-])",
    "an Azure client secret": r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,34}",
    "a service's access token": r"\b(?:do[opr]_v1_|dapi(?=\d|[a-f]+\d)|dckr_pat_|shp[acps][ats]_"
    r"|glsa_|glc_|gsk_|r8_|nvapi-|pplx-|xai-|tgp_v1_|lin_api_|ntn_|hvs\.|dp\.pt\.|NRAK-|PMAK-"
    r"|sntry[su]_|figd_)[\w.+/=-]{24,}",
    "a Mailgun key": r"\bkey-[0-9a-f]{32}\b",
    "a private key": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-"
    r"|\bAGE-SECRET-KEY-1[0-9A-Z]{20,}",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]*:[^\s/@\"'<>]{3,}@[\w.-]",
    "a Kaggle key": r"\"username\"\s*:\s*\"[^\"]+\"\s*,\s*\"key\"\s*:\s*\"[0-9a-f]{32}\"",
    "a login": r"\blogin\s+\S+\s+password\s+\S{6,}",
}
_QUOTE_TO_VALUE = r"[\\\"'`]*\s*(?::=|=>|[:=])\s*[\\\"'`]*"
_VALUE = r"([^\s\"'`\\,;<>{}()\[\]|&]+)"
_PASSWORD = re.compile(
    rf"(?:passw(?:or)?d|passwd|passphrase|pwd|[_-]pass|secret){_QUOTE_TO_VALUE}{_VALUE}", re.I
)
_KEY = re.compile(
    rf"(?:token|(?:access|account|api|auth|client|private|secret|service)key|[_ -]key|[_-]key[_-]id"
    rf"|auth|credentials?|signature)"
    rf"{_QUOTE_TO_VALUE}{_VALUE}|\b(?:bearer|basic)\s+{_VALUE}",
    re.I,
)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
# A change from one kind of character to another, but for the capital that opens a word.
_CHANGE = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
# Names of variables, and of those the ones whose values need not look like chance.
_SECRET_NAME = re.compile(
    r"(?:KEY|TOKEN|SECRET|PASS|PASSWORD|PASSWD|PASSPHRASE|(?<!OLD)(?<!^)PWD|CREDENTIALS?|CREDS?"
    r"|AUTH|DSN|(?<![A-Z])PAT)(?:_?\d+|_ID|_BASE)?$|(?:^|_)(?:SECRET|PASSWORD|TOKEN)_",
    re.I,
)
_PASSWORD_NAME = re.compile(r"PASS|PWD|SECRET|CRED", re.I)
_WORDS = re.compile(r"[A-Za-z]+(?:[-_./: ][A-Za-z]+)?")
_IDENTIFIER = re.compile(r"[A-Za-z]*\d{0,4}[A-Za-z]?(?:[-_./:][A-Za-z]*\d{0,4}[A-Za-z]?)*")


def assert_no_secrets(folder: str | Path) -> None:
    """Raise ValueError if a file in `folder` holds a key, a token, a password or your home's path.

    Looked for: the usual forms of keys, and words like `password =` before something that looks
    like one; the values of environment variables whose names say that they are secret, and the
    passwords in addresses such as `DATABASE_URL`; the home folder's path. A value that is an
    ordinary word cannot be told from text, and is let pass. Of weights the header is read. The
    message names the file and the line; it does not repeat the secret.
    """
    known = _known_values(os.environ) | _home(Path.home())
    for path in sorted(Path(folder).rglob("*")):
        if not path.is_file():
            continue
        text = _text(path)
        for kind, start in _found(text, known):
            raise ValueError(
                f"{path.relative_to(folder)} holds {kind} (line {text.count(chr(10), 0, start) + 1}"
                "): take it out, and if it was a key, revoke it. Nothing was published"
            )


def _text(path: Path) -> str:
    with path.open("rb") as file:
        if path.suffix == ".safetensors":  # the header's length, the header; then numbers
            length = int.from_bytes(file.read(8), "little")
            data = file.read(min(length, path.stat().st_size))
        else:
            data = file.read()
    utf_16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = data.decode("utf-16" if utf_16 else "utf-8", errors="ignore")
    if (
        path.name == "tokenizer.json"
    ):  # hundreds of thousands of short lines: a token and its number
        text = re.sub(r"(?m)^.{1,32}$", "", text)
    return text


def _found(text: str, known: Mapping[str, re.Pattern[str]]) -> Iterator[tuple[str, int]]:
    """Kind and place of each secret in `text`."""
    for kind, pattern in (known | _forms()).items():
        for match in pattern.finditer(text):
            yield kind, match.start()
    for detector in _detectors():
        for secret in detector.analyze_string(text):
            yield f"a secret ({detector.secret_type})", max(0, text.find(secret))
    for match in _PASSWORD.finditer(text):
        if _is_password(match[1]):
            yield "a password", match.start()
    for match in _KEY.finditer(text):
        if _is_random(match[1] or match[2]):
            yield "a key or token", match.start()


@cache
def _forms() -> dict[str, re.Pattern[str]]:
    return {kind: re.compile(form) for kind, form in _FORMS.items()}


@cache
def _detectors() -> tuple[Any, ...]:
    """Those of detect-secrets; where that is not installed there are none, and a warning."""
    if find_spec("detect_secrets") is None:
        warnings.warn(
            "detect-secrets is not installed: keys are looked for by the course's own patterns "
            "alone, which know fewer kinds. Before you publish: pip install detect-secrets",
            stacklevel=2,
        )
        return ()
    return tuple(
        getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
        for module, name in _DETECTORS.items()
    )


def _is_random(value: str) -> bool:
    """Whether it looks like chance: no word, name or version does."""
    value = value.strip(".:")
    changes = len(_CHANGE.findall(value))
    return bool(_UUID.fullmatch(value)) or (len(value) >= 16 and changes >= max(4, len(value) / 8))


def _is_password(value: str) -> bool:
    """Whether somebody may have chosen it: eight characters, and more than words."""
    return len(value) >= 8 and not _IDENTIFIER.fullmatch(value) and any(map(str.isalnum, value))


def _known_values(variables: Mapping[str, str]) -> dict[str, re.Pattern[str]]:
    """Patterns for secret values of environment variables, as they are and as JSON writes them."""
    values = {}
    for name, value in variables.items():
        if _SECRET_NAME.search(name) and not _is_ordinary(value, _PASSWORD_NAME.search(name)):
            values[f"the value of {name}"] = value
        if address := re.search(r"://[^\s/:@]*:([^\s/@]{8,})@", value):
            values[f"the password in {name}"] = address[1]
    return {
        kind: re.compile("|".join(map(re.escape, {value, json.dumps(value)[1:-1]})))
        for kind, value in values.items()
    }


def _is_ordinary(value: str, password: object) -> bool:
    """Whether it may well stand in a text: a word, a name, a number, a path."""
    if len(value) < 8 or re.fullmatch(r"\d{8,11}", value) or _is_path(value):
        return True
    if _is_random(value) or len(_CHANGE.findall(value)) > 3:
        return False
    return bool((_WORDS if password else _IDENTIFIER).fullmatch(value))


def _is_path(value: str) -> bool:
    try:
        return Path(value).is_absolute() and Path(value).exists()
    except (OSError, ValueError):  # too long for a name, or a zero byte
        return False


def _home(home: Path) -> dict[str, re.Pattern[str]]:
    """The home folder's path, with any separators; nothing where that is the root."""
    if len(home.parts) < 2:
        return {}
    path = r"[/\\]+".join(re.escape(part.strip("/\\")) for part in home.parts)
    return {"the path of your home folder": re.compile(rf"(?<![\w.-]){path}(?![\w-])")}
