"""docs/clients.md has each of the clients above, and no other."""

import importlib
from pathlib import Path

from table import Client

HERE = Path(__file__).parent
PAGE = HERE / "../../../docs/clients.md"
#: In the order of the table.
FILES = ("openai", "anthropic", "litellm", "instructor", "pydantic_ai", "langchain", "agents")


def clients() -> list[Client]:
    modules = [importlib.import_module(f"test_{name}") for name in FILES]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Client)]


def test_every_file_is_in_the_table() -> None:
    there = {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")}
    assert there == {*FILES, "docs"}


def test_the_page_has_each_of_them_and_no_other() -> None:
    section = PAGE.read_text().split("\n## Python\n")[1].split("\n## ")[0]
    rows = [
        line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| client")
    ]
    rows = [line for line in rows if not line.startswith("| ---")]
    assert "\n".join(rows) == "\n".join(client.row for client in clients())
