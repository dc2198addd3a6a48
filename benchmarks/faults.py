"""Kill sweeps for real, resume them, and look whether anything is lost: the fault table of docs/faults.md.

    python benchmarks/faults.py                    # all rounds that are not in results/faults/ yet, then the page
    python benchmarks/faults.py --share 0.1        # a tenth of them
    python benchmarks/faults.py --only "worker"    # those with this in their name
    python benchmarks/faults.py --again            # forget what was run
    python benchmarks/faults.py --page             # write the page only

Each round is a sweep of short trials with a trainer without torch, struck by a fault at a moment that its seed draws,
resumed, perhaps struck again, and looked at when it is finished: `killing/checks.py`. Finished rounds are kept line by
line, so a run may be stopped and gone on with. Beside it the same kills on stock Ray Tune + OptunaSearch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import document
import harness
from killing import peer
from killing.checks import KINDS as FINDINGS
from killing.kinds import KINDS, Kind
from killing.rounds import run_round
from tables import Table

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
RESULTS_DIR = harness.RESULTS_DIR / "faults"
PEER_ROUNDS = 5  # of each kind of kill

Line = Mapping[str, Any]


def main() -> None:
    parser = harness.options(__doc__)
    parser.set_defaults(results_dir=RESULTS_DIR)
    parser.add_argument("--share", type=float, default=1.0, help="of the rounds of every kind; at least one of each")
    parser.add_argument("--only", default="", help="only kinds with this in their name, as in `ray: worker`")
    parser.add_argument("--again", action="store_true", help="forget what was run before")
    parser.add_argument("--page", action="store_true", help="only write docs/faults.md from what is kept")
    options = parser.parse_args()
    options.results_dir.mkdir(parents=True, exist_ok=True)
    if options.again:
        for path in options.results_dir.glob("*.jsonl"):
            path.unlink()
    if not options.page:
        machine = options.results_dir / "machine.json"
        machine.write_text(json.dumps(harness.machine(), indent=1) + "\n", encoding="utf-8")
        harness.adopt_orphans()
        run_rounds(options)
        run_peers(options)
    made = blocks(options.results_dir)
    PAGE.write_text(document.fill(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    print("\n\n".join(made.values()))
    lines = read_lines(options.results_dir / "rounds.jsonl")
    sys.exit(any(total(lines, finding) for finding in FINDINGS))


def run_rounds(options: argparse.Namespace) -> None:
    path = options.results_dir / "rounds.jsonl"
    known = {(line["backend"], line["kind"], line["seed"]) for line in read_lines(path)}
    for seed in range(max(kind.n_rounds for kind in KINDS)):  # the first round of all kinds first
        for kind in chosen(options.only):
            wanted = seed < max(1, math.ceil(options.share * kind.n_rounds))
            if wanted and (kind.backend, kind.name, seed) not in known:
                outcome = run_round(kind, seed, keep_in=Path("/tmp/finesweep-faults"))
                keep(path, outcome.values())
                found = {key: texts for key, texts in outcome.found.items() if texts}
                harness.say(f"{kind.key} {seed}: {len(outcome.struck)} faults, {outcome.seconds} s {found or ''}")


def run_peers(options: argparse.Namespace) -> None:
    path = options.results_dir / "peers.jsonl"
    known = {(line["kind"], line["seed"]) for line in read_lines(path)}
    for seed in range(max(1, math.ceil(options.share * PEER_ROUNDS))):
        for kind in peer.KINDS:
            if options.only in f"peer: {kind}" and (kind, seed) not in known:
                outcome = peer.run_round(kind, seed)
                keep(path, outcome)
                harness.say(f"peer: {kind} {seed}: {outcome}")


def chosen(only: str) -> Iterable[Kind]:
    return (kind for kind in KINDS if only in kind.key)


def read_lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def keep(path: Path, values: Line) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


# --- the page -------------------------------------------------------------------------------------------------------


def blocks(results_dir: Path) -> dict[str, str]:
    """Make what stands in docs/faults.md between the marks."""
    lines, peers = read_lines(results_dir / "rounds.jsonl"), read_lines(results_dir / "peers.jsonl")
    machine: list[str] = json.loads((results_dir / "machine.json").read_text(encoding="utf-8"))
    named = {kind.key: [line for line in lines if of_kind(line, kind)] for kind in KINDS}
    ran = {key: its for key, its in named.items() if its}
    tables = [fault_table(backend, {k: v for k, v in ran.items() if k.startswith(backend)}) for backend in BACKENDS]
    planned = sum(kind.n_rounds for kind in KINDS)
    n_trials, minutes = sum(line["n_trials"] for line in lines), sum(line["seconds"] for line in lines) / 60
    said = (
        f"{len(lines)} rounds of {planned} planned, {sum(len(line['struck']) for line in lines)} faults, "
        f"{sum(line['n_drivers'] for line in lines)} drivers, {n_trials} trials; {minutes:.0f} minutes."
    )
    parts = ["; ".join(machine), said, *(table.markdown() for table in tables)]
    return {"faults": "\n\n".join(parts), "peer": peer.table(peers, side_by_side(lines)).markdown()}


BACKENDS = {"ray": "On Ray, two slots", "inline": "In one process, without Ray"}


def fault_table(backend: str, ran: Mapping[str, Sequence[Line]]) -> Table:
    rows = [row(key.partition(": ")[2], its) for key, its in ran.items()]
    everything = [line for its in ran.values() for line in its]
    columns = ("fault", "rounds", "faults", "trials", *FINDINGS)
    return Table(BACKENDS[backend], columns, (*rows, row("all", everything)))


def row(name: str, its: Sequence[Line]) -> tuple[str, ...]:
    counts = (len(its), sum(len(line["struck"]) for line in its), sum(line["n_trials"] for line in its))
    return (name, *map(str, counts), *(str(total(its, finding)) for finding in FINDINGS))


def total(lines: Iterable[Line], finding: str) -> int:
    return sum(len(line["found"][finding]) for line in lines)


def of_kind(line: Line, kind: Kind) -> bool:
    return (line["backend"], line["kind"]) == (kind.backend, kind.name)


def side_by_side(lines: Sequence[Line]) -> Mapping[str, Sequence[Line]]:
    """Find the rounds that correspond to the peer's."""
    found: defaultdict[str, list[Line]] = defaultdict(list)
    for line in lines:
        for kind in peer.KINDS:
            if line["backend"] == "ray" and line["kind"].startswith(kind):
                found[kind].append(line)
    return found


if __name__ == "__main__":
    main()
