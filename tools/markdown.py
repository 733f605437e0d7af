"""The little Markdown that the generated pages are made of."""

import inspect

__all__ = ["one_line", "row", "summary"]


def summary(thing: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return one_line((inspect.getdoc(thing) or "").partition("\n\n")[0])


def one_line(text: str) -> str:
    """`text` without line breaks."""
    return " ".join(text.split())


def row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
