"""What must not be stored or shown: passwords in URLs, values of secret environment variables, tokens known by shape.

In: text or JSON values on their way to the database, a log, an export or a terminal. Out: the same with *** in such
places; and of a setting, whether it is one. The one place that knows what secrets look like.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
_SHORTEST = 8  # characters of a variable's value that is hidden: less would be found in any text
_LONGEST_PASSWORD = 4096  # characters; cloud databases take signed requests as passwords

_URL_PASSWORD = re.compile(
    # up to the last @: an @ in a password should have been written %40, and often is not
    rf"(\b[A-Za-z][A-Za-z0-9+.-]{{0,19}}://[^\s/?#@:\"'<>]{{0,256}}):[^\s\"'<>]{{1,{_LONGEST_PASSWORD}}}@"
)
_URL_TOKEN = re.compile(r"(\bhttps?://)[^\s/?#@:\"'<>]{1,1024}@")  # a user without a password is a token there
_IN_QUERY = re.compile(r"(?i)([?&](?:[\w-]*(?:token|secret|signature)|api_?key|access_?key|key|sig)=)[^&\s\"'<>]+")
_PASSWORD_OF = re.compile(r"(?i)(passw(?:or)?d=)(?:'[^']*'|\"[^\"]*\"|[^&\s\"']+)")
_AUTHORIZATION = re.compile(
    r"(?i)(\bauthorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token)\s+|\bbearer\s+(?=\S{16}))[^\s\"',]+"
)
_TOKEN = re.compile(  # of Hugging Face, OpenAI and Anthropic, GitHub, GitLab, AWS, Slack, Google
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-(?=[\w-]*\d)[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abeprs]-[\w-]{10,}|AIza[\w-]{35})"
)
_SECRET_VARIABLE = re.compile(
    r"(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|APIKEY)(?:_|$)|_(?:KEY|PASS|PWD|PAT|AUTH|CREDENTIALS?)(?:_|$)"
)
_NO_SECRET_VARIABLE = re.compile(r"_(?:FILE|PATH|DIR|SOCK|URL|URI|HOST|NAME)$")
_SECRET_SETTING = re.compile(
    # pad_token and its like are words of tokenizers
    r"(?:^|_)(?:password|passwd|passphrase|secret|credentials?|api_?key|access_?key|private_?key|secret_?key)(?:_|$)"
    r"|(?:^|_)(?:hub|hf|api|auth|access|bearer|refresh|session|wandb|openai|github|huggingface)_?token$|^token$"
)


def hide(text: str) -> str:
    """Replace by *** every secret in the text that is known as one. Never raises."""
    return _hide(text, _secret_values())


def hide_in(value: Any) -> Any:
    """Hide secrets in all texts of a JSON value."""
    return _hide_in(value, _secret_values())


def hide_urls(text: str) -> str:
    """Replace by *** passwords and tokens in URLs, and passwords of the form password=…; leave all else."""
    if "@" in text and "://" in text:
        text = _URL_TOKEN.sub(rf"\g<1>{HIDDEN}@", _URL_PASSWORD.sub(rf"\g<1>:{HIDDEN}@", text))
    if "=" in text:
        text = _IN_QUERY.sub(rf"\g<1>{HIDDEN}", _PASSWORD_OF.sub(rf"\g<1>{HIDDEN}", text))
    return text


def secret_in_setting(name: str, value: str) -> str | None:
    """Say what makes a setting's text a secret, None if nothing does."""
    if _SECRET_SETTING.search(name.lower()) and value:
        return "it is named like a secret"
    if hide_urls(value) != value:
        return "it holds a password"
    if _hide_shapes(value) != value:
        return "it holds a token"
    for variable, secret in _secret_variables():
        if len(secret) >= 2 * _SHORTEST and secret in value:
            return f"it holds the value of the environment variable {variable}"
    return None


def _hide_in(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _hide(value, secrets)
    if isinstance(value, Mapping):
        return {key: _hide_in(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide_in(item, secrets) for item in value]
    return value


def _hide(text: str, secrets: Sequence[str]) -> str:
    text = _hide_shapes(hide_urls(text))
    for value in secrets:
        text = text.replace(value, HIDDEN)
    return text


def _hide_shapes(text: str) -> str:
    return _TOKEN.sub(HIDDEN, _AUTHORIZATION.sub(rf"\g<1>{HIDDEN}", text))


def _secret_values() -> list[str]:
    """Give the values to hide, as they may stand in messages, longest first: one may be part of another."""
    found: set[str] = set()
    for _, value in _secret_variables():
        found |= {value, quote(value, safe=""), repr(value)[1:-1], json.dumps(value)[1:-1]}
    return sorted(found, key=len, reverse=True)


def _secret_variables() -> Iterator[tuple[str, str]]:
    """Give the environment's secrets as they are now: a trainer may read a file of them while it runs."""
    for name, value in os.environ.items():
        if is_secret_variable(name):
            secret = value.strip()  # whoever reads it from a file may leave the line's end in it
            if _is_worth_hiding(secret):
                yield name, secret
        elif "://" in value and "@" in value:
            yield from ((name, password) for password in _passwords(value) if _is_worth_hiding(password))


@cache
def is_secret_variable(name: str) -> bool:
    """Tell by its name whether an environment variable's value is hidden."""
    return bool(_SECRET_VARIABLE.search(name.upper())) and not _NO_SECRET_VARIABLE.search(name.upper())


def _is_worth_hiding(value: str) -> bool:
    """Tell whether a value is long enough, and neither a path nor a plain number."""
    is_path = value.startswith("/") and os.path.exists(value)  # noqa: PTH110 - Path's own raises for what is too long
    return len(value) >= _SHORTEST and not is_path and not (value.isdecimal() and len(value) < 2 * _SHORTEST)


def _passwords(url: str) -> Iterator[str]:
    for found in re.finditer(r"://[^\s/?#@:]*:([^\s]*)@", url):
        yield found[1]
        yield unquote(found[1])
