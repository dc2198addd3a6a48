"""What counts as a secret, and what does not."""

from __future__ import annotations

import pytest

from finesweep.secrets import hide, hide_in, hide_urls, secret_in_setting


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se/cr:et@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        (
            "at http://me:secret@host:80/x?y=1, twice http://a:b@c",
            "at http://me:***@host:80/x?y=1, twice http://a:***@c",
        ),
        ("https://a-token@github.com/org/name.git", "https://***@github.com/org/name.git"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("host=h password='two words' user=me", "host=h password=*** user=me"),
        ("https://h/file?sig=abc%3D&X-Amz-Signature=1f&n=3", "https://h/file?sig=***&X-Amz-Signature=***&n=3"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ('{"Authorization": "Basic dXNlcjpwYXNz"}', '{"Authorization": "Basic ***"}'),
        ("with hf_abcdefghijklmnopqrstuvwx", "with ***"),
        ("with AKIAABCDEFGHIJKLMNOP and ghp_abcdefghijklmnopqrstuvwx.", "with *** and ***."),
    ],
)
def test_known_by_their_shape(text: str, shown: str) -> None:
    assert hide(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://host:8080/path and mail me@example.org",
        "ssh://git@github.com/org/name",
        "git@github.com:org/name.git",
        "sqlite:////tmp/a b.db",
        "n_tokens=128, pad_token=50256, key=3",
        "sk-learn, a bearer of news, basic training",
        "/home/me@work/x.db",
        "C:\\Users\\me@work",
        "ünïcödé \u202e \udcff \0",
    ],
)
def test_what_is_no_secret_is_left(text: str) -> None:
    assert hide(text) == hide_urls(text) == text


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "my_secret", "NPM_AUTH", "MYSQL_PWD"]
)
def test_values_of_variables_that_are_named_like_secrets(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "pla'nted\\12")
    assert hide(f"key pla'nted\\12, {'pla%27nted%5C12'}, {chr(34)}pla'nted\\\\12{chr(34)}") == 'key ***, ***, "***"'
    assert hide_in({"a": ["pla'nted\\12", 3, None], "b": {"c": True}}) == {"a": ["***", 3, None], "b": {"c": True}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "something"),
        ("SSH_AUTH_SOCK", "something"),
        ("SECRET_FILE", "something"),
        ("PWD", "something"),
        ("MONKEY", "something"),
        ("API_TOKEN", "short"),
        ("MAX_TOKEN", "100000000"),
        ("MY_KEY", "/usr/bin/env"),
    ],
)
def test_variables_that_are_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert hide(f"it says {value}") == f"it says {value}"


def test_a_password_in_the_url_of_a_variable_is_one_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:plan%40ted1@host/db")
    assert hide("tried plan@ted1 and plan%40ted1") == "tried *** and ***"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("api_key", "anything", "named like a secret"),
        ("hub_token", "anything", "named like a secret"),
        ("wandb_token", "anything", "named like a secret"),
        ("smtp_password", "anything", "named like a secret"),
        ("endpoint", "https://me:secret@host/v1", "holds a password"),
        ("anything", "hf_abcdefghijklmnopqrstuvwx", "holds a token"),
        ("anything", "xx planted-planted-1 xx", "environment variable SOME_KEY"),
    ],
)
def test_settings_that_are_secrets(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv("SOME_KEY", "planted-planted-1")
    assert said in (secret_in_setting(name, value) or "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pad_token", "<pad>"),
        ("eos_token", "</s>"),
        ("max_tokens", "12"),
        ("tokenizer", "bert-base"),
        ("secretary", "somebody"),
        ("api_key", ""),
        ("endpoint", "https://host:8000/v1"),
    ],
)
def test_settings_that_are_none(name: str, value: str) -> None:
    assert secret_in_setting(name, value) is None


@pytest.mark.parametrize("text", ["a" * 3_000_000, "a.b-" * 700_000, "@" * 1_000_000 + "://", "://@=" * 500_000])
def test_long_texts_are_read_in_one_go_and_nothing_is_made_up(text: str) -> None:
    """What takes the square of their length would not come back within an hour."""
    assert hide(text) == text
