"""Write finesweep/export/record.schema.json: the JSON Schema of the records that `finesweep export` writes.

Run it after changing what a record holds: `python tools/export_schema.py`. A unit test compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SCHEMA = Path(__file__).parent.parent / "src" / "finesweep" / "export" / "record.schema.json"


def main() -> None:
    from finesweep.export.record_file import json_schema

    SCHEMA.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"{SCHEMA} written\n")


if __name__ == "__main__":
    main()
