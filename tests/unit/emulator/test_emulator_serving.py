"""How the emulator is begun: what its help says."""

from __future__ import annotations

from tests.commandline import invoke


def test_the_help_says_who_reads_which_address() -> None:
    told = " ".join(invoke("emulator", "--help").stdout.split())
    assert "A COMMAND that uses the openai client finds address and key in OPENAI_BASE_URL and OPENAI_API_KEY" in told
    assert "--set remote.base_url=http://127.0.0.1:PORT/v1" in told
