"""Write the tables of `results/*.json` into docs/benchmarks.md, between the marks that name them.

    python benchmarks/document.py

What stands outside the marks is written by hand and stays.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tables import read_report

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
RESULTS_DIR = Path(__file__).parent / "results"
NOT_RUN = "Not measured yet."


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """Replace what stands between `<!-- NAME -->` and `<!-- end of NAME -->` by the block of that name.

    A block that there is none of says so; a block that the page has no place for is an error: it would be lost.
    """
    marks = r"(<!-- (?P<name>[\w-]+) -->\n).*?(<!-- end of (?P=name) -->)"
    if unplaced := blocks.keys() - {match["name"] for match in re.finditer(marks, page, re.DOTALL)}:
        raise ValueError(f"the page has no place for {', '.join(sorted(unplaced))}: add the marks")
    return re.sub(
        marks,
        lambda match: f"{match[1]}\n{blocks.get(match['name'], NOT_RUN)}\n\n{match[3]}",
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    reports = [read_report(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS_DIR.glob("*.json"))]
    page = PAGE.read_text(encoding="utf-8")
    try:
        PAGE.write_text(fill(page, {report.name: report.markdown() for report in reports}), encoding="utf-8")
    except ValueError as error:
        sys.exit(str(error))
    print(f"{len(reports)} benchmarks are in {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
