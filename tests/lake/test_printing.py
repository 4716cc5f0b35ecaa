"""What others chose is printed as it is: no markup, no commands to the terminal."""

import io

import pytest
from rich.console import Console

from lake.printing import PlainTable, printable

STRANGE = [
    "[/x]",
    "[bold]ewr[/bold]",
    "[red]",
    ":smile:",
    "a\x1b[2Jb",
    "x\ny",
    "\u202eevil",
    "[link=file:///etc]x[/link]",
]


@pytest.mark.parametrize("text", STRANGE)
def test_a_cell_is_the_text_itself(text):
    out = io.StringIO()
    table = PlainTable("tenant", "rows", box=None)
    table.add_row(text, "7", style="bold")
    Console(file=out, width=100, force_terminal=True).print(table)
    assert printable(text) in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert out.getvalue().count("\n") == 2
