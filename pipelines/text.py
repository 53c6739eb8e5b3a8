"""File names as text that can be printed: they may hold any byte, and a terminal obeys some of them."""

from __future__ import annotations


def plain(text: str) -> str:
    """``text`` with what no encoder takes (bytes that are not UTF-8) spelt out; otherwise unchanged."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def on_one_line(text: str) -> str:
    """:func:`plain`, with line ends, escape codes and other control characters spelt out too."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in plain(text))
