"""The documents tell the truth: commands exist, files and links are there, every verb is written of."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from finesweep.cli import cli
from finesweep.spec.files import check_sweep

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


def commands(document: Path) -> list[list[str]]:
    """List the finesweep commands in a document's code blocks and inline code; N stands for a number."""
    text = document.read_text(encoding="utf-8")
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()] + re.findall(r"`(finesweep [^`]+)`", text)
    found = [line.partition("  #")[0] for line in lines if line.startswith("finesweep ")]
    return [["9" if word == "N" else word.strip("[]") for word in shlex.split(line)] for line in found]


COMMANDS = [(doc.name, words) for doc in DOCUMENTS for words in commands(doc)]


@pytest.mark.parametrize(("document", "words"), COMMANDS, ids=[" ".join(words) for _, words in COMMANDS])
def test_documented_commands_parse(document: str, words: list[str]) -> None:
    """Options and arguments are those the command line knows; nothing is run."""
    verb = cli.commands.get(words[1])
    if verb is None:
        assert words[1].startswith("-"), f"{document}: no verb {words[1]!r}"
        return
    verb.make_context(words[1], words[2:], resilient_parsing=False)


def test_there_are_documented_commands() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_every_verb_is_in_the_readme_and_has_help(verb: str) -> None:
    assert re.search(rf"finesweep {verb}\b", (ROOT / "README.md").read_text(encoding="utf-8"))
    command = cli.commands[verb]
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.name)
def test_every_sweep_file_is_free_of_faults(sweep: Path) -> None:
    assert [str(fault) for fault in check_sweep(sweep).faults] == []


def test_every_study_file_is_used_by_a_sweep() -> None:
    used = {Path(line.split(":", 1)[1].split("#")[0].strip()).name for s in SWEEPS
            for line in s.read_text().splitlines() if line.startswith("study:")}  # fmt: skip
    assert {study.name for study in (ROOT / "studies").glob("*.yaml")} == used


def test_the_tree_in_the_readme_names_every_folder() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = [path.name for path in (ROOT / "src/finesweep").iterdir() if (path / "__init__.py").exists()]
    tops = ["src", "studies", "sweeps", "tests", "docs", "benchmarks", "tools"]
    assert [name for name in (*rooms, *tops) if f"{name}/" not in readme] == []
