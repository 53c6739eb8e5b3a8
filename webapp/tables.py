"""Tables of the page: each scrolls in a box of its own, by keyboard too, so that the page does not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_LONG = 16  # characters


def table_html(label: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of texts; the first cell of a row is its heading.

    Args:
        label: what it shows, for those who cannot see it.
        head: one text a column.
        rows: the same.
        kind: a class more, for the style.
    """
    return table_of(label, head, ((first, *map(escape, rest)) for first, *rest in rows), kind)


def table_of(label: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """As :func:`table_html`, with cells of HTML: all but the first of a row."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{_breakable(first)}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="tf-table-box" tabindex="0" role="region" aria-label="{escape(label, quote=True)}">'
        f'<table class="tf-figures {kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def note_html(words: str) -> str:
    """What is to be known of a table or plot, under it."""
    return f'<p class="tf-note">{escape(words)}</p>'


def _breakable(name: str) -> str:
    """A long name may go on in the next line after an underscore, where there is little room."""
    return escape(name).replace("_", "_<wbr>") if len(name) > _LONG else escape(name)
