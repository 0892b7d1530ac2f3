"""Tables of metrics as text, Markdown, HTML and JSON."""

import json
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

Metrics = dict[str, Any]


Row = tuple[str, list[str]]


def text(every: Sequence[tuple[str, list[str], list[Row]]]) -> str:
    """Tables as text to be read."""
    return "\n\n".join(markdown(*table) for table in every)


def markdown(title: str, head: Sequence[str], rows: Sequence[Row]) -> str:
    """A table in Markdown with a title in its corner."""
    return markdown_table([f"**{title}**", *head], [[label, *cells] for label, cells in rows])


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned to be read as plain text too: labels left, numbers right."""
    return _table("pipe", head, rows)


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], labels: Collection[int] = (0,)) -> str:
    """A table for the terminal, without lines: the columns `labels` left, the others, numbers, right."""
    return _table("plain", head, rows, labels)


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in HTML; what stands in the cells is escaped."""
    return _table("html", head, rows)


def _table(style: str, head: Sequence[str], rows: Sequence[Sequence[str]], labels: Collection[int] = (0,)) -> str:
    alignment = ["left" if column in labels else "right" for column in range(len(head))]
    return str(tabulate(rows, headers=head, tablefmt=style, colalign=alignment, disable_numparse=True))


def to_json(metrics: Metrics, indent: int | None = None) -> str:
    """As JSON, with null for numbers that it has not got."""
    return json.dumps(_finite(metrics), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(value: float | None, scale: float = 1.0) -> str:
    """A figure with three digits that count."""
    if value is None or not np.isfinite(value):
        return "–"
    scaled = scale * value
    return f"{scaled:.0f}" if abs(scaled) >= 100 else f"{scaled:.3g}"
