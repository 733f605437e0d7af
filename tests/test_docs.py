"""What is written is true: generated pages are up to date, links lead somewhere, examples fit the code that they show."""

import ast
import inspect
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import fsn
from fsn.cli.main import fsn as fsn_command
from fsn.core.errors import FsnError
from fsn.daemon.coordinator import CoordinatorConfig
from fsn.node.config import NodeConfig
from fsn.runtime.config import load_config, settings
from tools.http_reference import admin_api, coordinator_api, path_of
from tools.reference import commands, error_classes, pages

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
WRITTEN = [*PAGES, *sorted(ROOT.glob("config/*")), ROOT / "Makefile", ROOT / "docker-compose.yml"]
GENERATED = pages()
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
EXAMPLE = ROOT / "config" / "coordinator.example.toml"
PROGRAMS = {"fsn": (), "./fsn": (), "./storage-node": ("node",), "./coordinator": ("coordinator",)}
"""What examples run, and which words of `fsn` it stands for."""

PLAN = (
    "curl http://localhost:8080/health",
    './storage-node init --name "Test Node" --coordinator-url http://localhost:8080',
    "./storage-node start",
    "curl http://localhost:8080/api/v1/nodes",
    "curl -X POST http://localhost:8080/api/v1/auth/register \\\n"
    '  -d \'{"email":"test@example.com","password":"test123"}\'',
    "curl -X POST http://localhost:8080/api/v1/auth/login \\\n"
    '  -d \'{"email":"test@example.com","password":"test123"}\'',
    "curl -X POST http://localhost:8080/api/v1/files/upload/initiate \\\n"
    '  -H "Authorization: Bearer <token>" \\\n'
    '  -d \'{"filename":"test.txt","size_bytes":1024}\'',
    'curl http://localhost:8080/api/v1/files/<file_id>/download \\\n  -H "Authorization: Bearer <token>"',
)
"""The commands of the plan's checkpoints for its phases 1 and 2."""


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: str(path.name))
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    """A default, help text, operation or error that changed is changed on its page, too (`make docs`)."""
    assert path.read_text() == GENERATED[path]


def test_every_command_is_documented() -> None:
    """The page of commands has a section for each."""
    page = (ROOT / "docs/reference/cli.md").read_text()
    assert [name for name, _, _ in commands() if f"\n## {name}\n" not in page] == []


def test_every_http_operation_is_documented() -> None:
    """Each has a section, a summary, and a docstring where it says more than the summary."""
    page = (ROOT / "docs/reference/http-api.md").read_text()
    for operation in [*coordinator_api(), *admin_api()]:
        assert f"\n### {operation.method} {path_of(operation)}\n" in page
        assert operation.summary


def test_every_error_is_documented() -> None:
    """Whatever derives from FsnError in the package has its row."""
    page = (ROOT / "docs/reference/errors.md").read_text()
    assert len(error_classes()) == 23
    assert all(f"| `{kind.code}` | `{kind.__name__}` |" in page for kind in error_classes())
    assert all(issubclass(getattr(fsn, name), FsnError) for name in fsn.__all__ if f"`{name}`" in page)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """A relative link names a file that is there, and an anchor names one of its headings."""
    page = ROOT / name
    for target in links(page.read_text()):
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{name} links to {target}"
        assert not anchor or anchor in anchors(found.read_text()), f"{name} links to {target}"


def test_every_page_is_listed() -> None:
    """docs/README.md, the index, links to every other page."""
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target.partition("#")[0]).resolve() for target in links(index.read_text())}
    assert [name for name in NAMES if name.startswith("docs/") and ROOT / name not in {*listed, index}] == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_machine_shows_through(path: Path) -> None:
    """No path of the machine on which it was written."""
    assert (
        re.findall(r"(?:/work/|/root/|/tmp/tmp\.|/home/(?!\w*/?\.)|shared/(?:facts|design))\S*", path.read_text()) == []
    )


@pytest.mark.parametrize("command", PLAN)
def test_the_tutorial_has_the_plans_commands(command: str) -> None:
    """Verbatim."""
    assert command in (ROOT / "docs/tutorial/first-network.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_commands_that_are_shown_exist(name: str) -> None:
    """Every `fsn ...` line in a block of code names a command that is there, with options that it has."""
    for line in command_lines((ROOT / name).read_text()):
        assert misfit(line) is None, f"{name}: {line}: {misfit(line)}"


@pytest.mark.parametrize("name", ["README.md", "docs/how-to/embed.md"])
def test_python_examples_fit_the_library(name: str) -> None:
    """Each block compiles; what it calls of fsn is public and takes these arguments. tests/test_library.py runs the like."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, name, "exec")
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_fsn(node.func.value):
                assert node.func.attr in fsn.__all__
                keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg is not None}
                inspect.signature(getattr(fsn, node.func.attr)).bind(*node.args, **keywords)


def test_the_coordinators_example_is_complete_and_shows_the_defaults() -> None:
    """Every setting stands in the example (without a default: as a comment), and its value is the default."""
    example = load_config(CoordinatorConfig, file=EXAMPLE)
    assert example == load_config(CoordinatorConfig, overrides={"data_dir": example.data_dir})
    text = EXAMPLE.read_text()
    for section, body in sections(text):
        leaves = {s.key.rpartition(".")[2] for s in settings(CoordinatorConfig) if s.key.rpartition(".")[0] == section}
        shown = set(re.findall(r"^#?(\w+) = ", body, re.MULTILINE))
        assert shown == leaves, f"[{section}]"
    commented_out = re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)
    load_config(CoordinatorConfig, overrides=dict(flat(tomllib.loads(commented_out))))


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_are_named_exist(name: str) -> None:
    """What is written as `[section] key` is a setting of a daemon; so is every `FSN_SECTION__KEY`."""
    known = {s.key: s.environment_variable for cls in (CoordinatorConfig, NodeConfig) for s in settings(cls)}
    text = (ROOT / name).read_text()
    for section, key in re.findall(r"`\[([a-z0-9_.]+)\] (\w+)", text):
        assert f"{section}.{key}" in known
    assert set(re.findall(r"FSN_[A-Z0-9]+__\w+", text)) <= {*known.values(), "FSN_SECTION__KEY"}


def test_the_way_of_a_byte_is_the_real_one() -> None:
    """Every file that these tables of ARCHITECTURE.md name is there, and has the functions and classes named after it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    lines = text.partition("## The way of a byte\n")[2].partition("\n## ")[0].splitlines()
    steps = [step for line in lines if line.startswith("| ") for step in steps_of(line)]
    assert len({path for path, _ in steps}) > 25
    for path, name in steps:
        assert path.exists(), path
        assert re.search(rf"\b(def|class) {name}\b" if name else "", path.read_text()), f"{path} has no {name}"


def steps_of(line: str) -> Iterator[tuple[Path, str]]:
    """The files in a row of such a table, each alone and with every name that follows it; `b.py` after `a/c.py` is `a/b.py`."""
    path = ROOT
    for word in re.findall(r"`([^`]+)`", line):
        if re.fullmatch(r"[\w/]+\.py", word):
            path = path.parent / word if "/" not in word else ROOT / "src/fsn" / word
            yield path, ""
        elif path != ROOT and re.fullmatch(r"[A-Za-z_]+(\.[a-z_]+)?", word):
            yield from ((path, part) for part in word.split("."))


def links(text: str) -> Iterator[str]:
    """Targets of the links in a page that lead to files of ours."""
    without_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", without_code):
        if not target.startswith(("http://", "https://", "mailto:")):
            yield target


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, by GitHub's rule."""
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_lines(text: str) -> Iterator[str]:
    """Lines in blocks of code (fenced as sh or bash, or indented) that run one of our programs."""
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```|((?:^ {4}\S.*\n)+)", text, re.DOTALL | re.MULTILINE):
        for line in "".join(block).replace("\\\n", " ").splitlines():
            words = line.split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if words and words[0] in PROGRAMS:
                yield " ".join(words)


def misfit(line: str) -> str | None:
    """Why this command line cannot be, or None."""
    program, *words = itertools.takewhile(
        lambda word: word not in ("|", ">", ";", "&&"), shlex.split(line, comments=True)
    )
    words = [*PROGRAMS[program], *words]
    command: click.Command = fsn_command
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not (command.invoke_without_command and words[0][0] == "-"):
        below = command.get_command(context, words.pop(0))
        if below is None:
            return "there is no such command"
        command = below
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
    return f"no options {given - known - {'--help'}}" if given - known - {"--help"} else None


def is_fsn(node: ast.expr) -> bool:
    """Whether it is the name `fsn`."""
    return isinstance(node, ast.Name) and node.id == "fsn"


def sections(text: str) -> Iterator[tuple[str, str]]:
    """The tables of a TOML text: name ("" for the top) and lines."""
    top, *parts = re.split(r"^\[([\w.]+)\]\n", text, flags=re.MULTILINE)
    yield "", top
    yield from zip(parts[::2], parts[1::2], strict=True)


def flat(table: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and values."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.mark.parametrize("name", ["docs/explanation/earnings.md", "docs/explanation/proofs-and-reputation.md"])
def test_worked_examples_come_out_as_written(name: str) -> None:
    """Each block of Python is run, and asserts what the page says."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        assert "assert" in block
        exec(compile(block, name, "exec"), {})
