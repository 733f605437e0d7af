"""The reference of stories: what a file of `fsn scenario` may say, from the classes that read it."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import attrs

from fsn.sim.steps import OnNodes, Step
from fsn.sim.story import StoryNetwork, builtin_stories, load_story
from fsn.sim.verbs import VERBS
from tools.markdown import one_line, row, summary

__all__ = ["scenarios_page"]


def scenarios_page(kind: Callable[[Any], str], value: Callable[[object], str]) -> Iterator[str]:
    """The page; `kind` and `value` show types and defaults as the page of settings does."""
    yield from (
        "",
        "# Stories",
        "",
        "A story is a TOML file: a network, what befalls it, what must come of it. `fsn scenario run FILE --seed 7` plays it in virtual",
        "time and prints a timeline and a verdict; the same story, seed and version give the same events and the same digest. How to write",
        "one: [try a policy](../how-to/try-a-policy.md). `fsn scenario check FILE` names every mistake by its place.",
        "",
        "```toml",
        'title = "A node dies"             # both texts must be given',
        'tells = "Its chunks are rebuilt."',
        "",
        "[network]                         # what there is at the beginning",
        "nodes = 6",
        "",
        "[policy.upload]                   # any setting of a coordinator's services",
        "replicas = 4",
        "",
        "[[steps]]                         # one after the other",
        'do = "put"',
        "files = 10",
        "```",
        "",
        "## `[network]`",
        "",
        *_table(StoryNetwork, StoryNetwork, kind, value),
        "",
        "## `[policy]`",
        "",
        "The sections `accounts`, `credits`, `membership`, `placement`, `upload`, `download` and so on of ",
        "[the coordinator's settings](configuration.md), under `policy`:",
        "`[policy.upload]`. What is not said is as in the product, but for the silence of",
        "nodes (`membership.silent_after_seconds`), which is three heartbeats, and cheap password hashes.",
        "",
        "## `[[steps]]`",
        "",
        "`do` says what happens, the other keys how. Steps that befall nodes take",
        "",
        *_table(OnNodes, OnNodes, kind, value),
        "",
        "and befall all nodes that they can happen to when none of these is given.",
    )
    for verb in sorted(VERBS):
        yield from _verb(verb, VERBS[verb], kind, value)
    yield from _what_is_checked()


def _verb(verb: str, step: type[Step], kind: Callable[[Any], str], value: Callable[[object], str]) -> Iterator[str]:
    is_on_nodes = issubclass(step, OnNodes)
    yield from ("", f"### `{verb}`", "", summary(step) + (" Befalls nodes." if is_on_nodes else ""))
    base = OnNodes if is_on_nodes else Step
    if any(field.name not in attrs.fields_dict(base) for field in attrs.fields(step)):
        yield from ("", *_table(step, base, kind, value))


def _table(
    cls: type[Any], base: type[Any], kind: Callable[[Any], str], value: Callable[[object], str]
) -> Iterator[str]:
    """The settings of `cls` that `base` has not; all of them when both are the same."""
    hints, docs = get_type_hints(cls), _docs(cls)
    known = () if cls is base else attrs.fields_dict(base)
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    for field in attrs.fields(cls):
        if field.name not in known:
            default = "must be given" if field.default is attrs.NOTHING else value(field.default)
            yield row(f"`{field.name}`", kind(hints[field.name]), default, docs[field.name])


def _docs(cls: type[Any]) -> dict[str, str]:
    """The string after each attribute, in `cls` and the classes above it; KeyError there means an attribute without one."""
    found: dict[str, str] = {}
    for each in reversed([each for each in cls.__mro__ if attrs.has(each)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = following.value if isinstance(following, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found[statement.target.id] = one_line(text.value)
    return found


def _what_is_checked() -> Iterator[str]:
    yield from (
        "",
        "## What is checked",
        "",
        "After every step, and every six hours of `advance`, `nights` and `life`, the catalogue is compared with what truly lies on the",
        "simulated disks:",
        "",
        "| invariant | it is violated when |",
        "|---|---|",
        "| `kept` | a chunk of a file that was acknowledged and not deleted is on no disk any more |",
        "| `readable` | a file cannot be read, twice in two minutes, though each of its chunks is on a node that is there |",
        "| `present` | a replica is counted on a node that is there and has not listed it for `find_out_hours` |",
        "| `apart` | a new replica shares a failure domain (/24) with another one of its chunk while others are free |",
        "| `ledger` | entries do not add up to zero, or a balance is not what its entries add up to |",
        "",
        "Two files, by lot, are read each time. A violation is in the timeline where it was found (`violated_...`), and the verdict",
        "repeats the seed. The command ends with 0 when all held, 5 when not, 9 when the story cannot be read.",
        "",
        "## Stories that come with the program",
        "",
        "| name | what it tells |",
        "|---|---|",
        *(row(f"`{name}`", load_story(file).tells) for name, file in builtin_stories().items()),
    )
