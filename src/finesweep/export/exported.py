"""What an export comes to before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Exported:
    text: str  # of the file itself
    beside: Mapping[str, str] = field(default_factory=dict)  # file name -> text, of those that it needs in its folder
    warnings: tuple[str, ...] = ()  # each begins with what of the record it is about
