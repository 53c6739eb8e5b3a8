"""Reads pieces of the page as a person does."""

import re
from html.parser import HTMLParser


class _Table(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows = []

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def rows_of(html):
    """The cells of the first table of ``html``, its head first."""
    table = _Table()
    table.feed(html[html.index("<table") : html.index("</table>")])
    return [[" ".join(cell.split()) for cell in row] for row in table.rows]


def text_of(html):
    """Its words, with one space between them."""
    return " ".join(re.sub(r"<[^>]+>", "", html).split())
