"""Configuration: where a setting comes from, what is refused and how that is told, and that what is written is read back."""

import math
import tomllib
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from attrs.validators import ge, in_, le
from hypothesis import given, settings
from hypothesis import strategies as st

from fsn.core.errors import ConfigError
from fsn.daemon.coordinator import CoordinatorConfig, DatabaseConfig
from fsn.node.config import AdminConfig, NodeConfig
from fsn.node.config import CoordinatorConfig as Contact
from fsn.runtime.config import ByteSize, Setting, config_as_toml, load_config
from fsn.runtime.config import settings as settings_of


def _no_rainbow(_: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if value == "rainbow":
        raise ConfigError(f"{attribute.name} must be one colour, found {value}")


@attrs.frozen
class Inner:
    """A section."""

    port: int = attrs.field(default=80, validator=[ge(0), le(65535)])
    colour: str = attrs.field(default="red", validator=_no_rainbow)
    limit: int | None = attrs.field(default=5)
    ratio: float = 0.5


@attrs.frozen
class Outer:
    """Every kind of setting."""

    name: str
    folder: Path = Path("/nowhere")
    is_on: bool = False
    size: ByteSize = ByteSize(7)
    words: tuple[str, ...] = ()
    level: Literal["low", "high"] = "low"
    choice: str = attrs.field(default="a", validator=in_(["a", "b"]))
    motto: str | None = None
    inner: Inner = attrs.field(factory=lambda: Inner(port=81))
    password: str | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.is_on and not self.words:
            raise ValueError("is_on wants words")


def load(text: str, tmp_path: Path, environment: dict[str, str] | None = None, **overrides: object) -> Outer:
    """The configuration that a file with this text gives."""
    file = tmp_path / "c.toml"
    file.write_text(text, "utf-8")
    return load_config(Outer, file=file, environment=environment, overrides=overrides)


def mistakes_of(text: str, tmp_path: Path, environment: dict[str, str] | None = None) -> list[str]:
    """What is said against a file with this text."""
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, environment)
    mistakes = caught.value.facts["mistakes"]
    assert isinstance(mistakes, list)
    assert caught.value.message == f"{tmp_path / 'c.toml'}: {'; '.join(mistakes)}"
    return mistakes


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """The file is overruled by the environment, and both by flags; a flag that was not given overrules nothing."""
    text = 'name = "file"\nlevel = "high"\n[inner]\nport = 1\nlimit = 1\nratio = 1'
    environment = {"FSN_INNER__PORT": "2", "FSN_INNER__LIMIT": "2", "FSN_NAME": "environment"}
    found = load(text, tmp_path, environment, **{"inner.port": 3, "name": None})
    assert (found.inner.port, found.inner.limit, found.inner.ratio) == (3, 2, 1.0)
    assert (found.name, found.level, found.choice) == ("environment", "high", "a")


def test_a_section_keeps_the_defaults_of_its_place(tmp_path: Path) -> None:
    """What a section does not say is as in the section's default there, not as in its class alone."""
    assert load('name = "n"', tmp_path).inner == Inner(port=81)
    assert load('name = "n"\n[inner]\ncolour = "blue"', tmp_path).inner == Inner(port=81, colour="blue")
    assert Setting("inner.port", int, 81) in list(settings_of(Outer))


def test_every_mistake_is_told_at_once_by_its_key(tmp_path: Path) -> None:
    """All mistakes of all sections come together, several in one section too, each with its key first."""
    text = """
        is_on = 1
        size = "10XB"
        words = "one"
        level = "loud"
        choice = "c"
        nonsense = 1
        [inner]
        port = 70000
        colour = "rainbow"
        ratio = "half"
        limit = true
        prot = 1
    """
    found = mistakes_of(text, tmp_path)
    keys = [mistake.partition(": ")[0] for mistake in found]
    assert sorted(keys) == sorted(
        ["name", "is_on", "size", "words", "level", "choice", "nonsense"]
        + [f"inner.{name}" for name in ("port", "colour", "ratio", "limit", "prot")]
    )
    assert "inner.port: must be <= 65535: 70000" in found
    assert "inner.colour: must be one colour, found rainbow" in found
    assert "name: must be given" in found
    assert "nonsense: unknown setting" in found
    assert "choice: must be in ['a', 'b'] (got 'c')" in found


def test_a_rule_on_several_settings_is_told(tmp_path: Path) -> None:
    """What only the whole section can judge is a mistake like others."""
    assert mistakes_of('name = "n"\nis_on = true', tmp_path) == ["is_on wants words"]


@pytest.mark.parametrize("text", ["inner = 5", 'inner = "x"', "inner = [1]"])
def test_a_value_in_the_place_of_a_section_is_a_mistake(tmp_path: Path, text: str) -> None:
    """It is told, also when the environment sets something inside that section."""
    for environment in ({}, {"FSN_INNER__PORT": "1"}):
        [mistake] = mistakes_of(f'name = "n"\n{text}', tmp_path, environment)
        assert mistake.startswith("inner: a section [inner] is wanted")


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("FSN_NAME", "8080", "name", "8080"),
        ("FSN_NAME", 'say "x" = \\ 1', "name", 'say "x" = \\ 1'),
        ("FSN_IS_ON", "false", "is_on", False),
        ("FSN_SIZE", "10GB", "size", 10**10),
        ("FSN_SIZE", "12", "size", 12),
        ("FSN_FOLDER", "/a b", "folder", Path("/a b")),
        ("FSN_WORDS", '["a", "b"]', "words", ("a", "b")),
        ("FSN_WORDS", "https://a.example, b", "words", ("https://a.example", "b")),
        ("FSN_WORDS", "", "words", ()),
        ("FSN_MOTTO", "none", "motto", "none"),
        ("FSN_LEVEL", "high", "level", "high"),
    ],
)
def test_the_environment_speaks_for_every_kind(
    tmp_path: Path, variable: str, text: str, key: str, value: object
) -> None:
    """Text of a variable becomes a value of the setting's kind; what others call FSN_ is not ours."""
    found = load('name = "n"', tmp_path, {variable: text, "FSN_MASTER_KEY": "x", "OTHER": "y"})
    assert getattr(found, key) == value


@pytest.mark.parametrize("text", ["yes", "True", "1", "", "08", "1\nport = 2\n[["])
def test_what_is_no_value_in_the_environment_is_a_mistake(tmp_path: Path, text: str) -> None:
    """It is told by the setting's key."""
    [mistake] = mistakes_of('name = "n"', tmp_path, {"FSN_IS_ON": text})
    assert mistake.startswith("is_on: true or false is wanted")


@pytest.mark.parametrize(
    "text",
    ["[[[", "x = \xff", f"inner.port = {'9' * 5000}", f"inner.ratio = 1{'0' * 400}", 'folder = "~nobody-such/x"'],
)
def test_what_cannot_be_read_names_the_file(tmp_path: Path, text: str) -> None:
    """Broken TOML, other encodings, absurd numbers: a ConfigError that names the file, nothing else."""
    file = tmp_path / "c.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"c\.toml"):
        load_config(Outer, file=file)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    """A file from an editor that writes one is read."""
    (tmp_path / "c.toml").write_bytes(b'\xef\xbb\xbfname = "n"\n')
    assert load_config(Outer, file=tmp_path / "c.toml").name == "n"


def test_a_file_that_is_not_there_and_one_that_is_a_folder(tmp_path: Path) -> None:
    """Each is told in words, with the path once."""
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, file=tmp_path / "no.toml")
    assert caught.value.message == f"{tmp_path / 'no.toml'}: there is no such file"
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, file=tmp_path)
    assert caught.value.message == f"{tmp_path} cannot be read: Is a directory"


def test_none_is_written_where_it_is_not_the_default(tmp_path: Path) -> None:
    """A setting that may be switched off can be, in a file, too."""
    config = Outer("n", inner=Inner(limit=None))
    assert 'limit = "none"' in config_as_toml(config)
    assert load(config_as_toml(config), tmp_path) == Outer("n", inner=Inner(port=80, limit=None))
    assert "motto" not in config_as_toml(config)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
AWKWARD = ['"', "\\", "\n\r\t\0\x1b\x7f", "\x85\u2028\u200e", "\U000e0001\U0001f600", '"""', "'", "#", "= [x]"]


@settings(derandomize=True, deadline=None, database=None, max_examples=150)
@given(
    name=st.one_of(TEXT, st.sampled_from(AWKWARD)),
    words=st.lists(st.one_of(TEXT, st.sampled_from(AWKWARD))).map(tuple),
    motto=st.none() | TEXT,
    is_on=st.booleans(),
    size=st.integers(0, 2**63),
    folder=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0~")).map(Path),
    ratio=st.floats(allow_nan=False),
    limit=st.none() | st.integers(),
    level=st.sampled_from(["low", "high"]),
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, is_on: bool, **values: Any) -> None:
    """Any configuration survives the way through TOML, whatever characters are in it."""
    inner = Inner(ratio=values.pop("ratio"), limit=values.pop("limit"))
    config = Outer(is_on=is_on and bool(values["words"]), inner=inner, **values)
    file = tmp_path_factory.getbasetemp() / "round-trip.toml"
    file.write_text(config_as_toml(config), "utf-8", newline="")
    assert load_config(Outer, file=file) == config


def test_not_a_number_is_written_as_toml() -> None:
    """Infinities and NaN have names in TOML."""
    found = tomllib.loads(config_as_toml(Inner(ratio=math.nan)))
    assert math.isnan(found["ratio"])


def test_text_that_toml_cannot_say_is_refused() -> None:
    """A path with bytes that are no UTF-8 is told, rather than written as a file that nobody can read."""
    with pytest.raises(ConfigError, match="UTF-8"):
        config_as_toml(Outer("n", folder=Path("/data/\udcff")))


def test_a_secret_is_not_printed() -> None:
    """A setting that is in no repr is in no listing; that it is set, is."""
    text = config_as_toml(Outer("n", password="hush"))
    assert "hush" not in text
    assert "# password is set, and not shown" in text
    assert "password" not in config_as_toml(Outer("n"))


def test_the_password_in_a_dsn_is_not_printed(tmp_path: Path) -> None:
    """`config show` with FSN_DATABASE__DSN set prints valid TOML without the password."""
    dsn = "postgresql://fsn:hush@db.example.org/fsn"
    config = load_config(CoordinatorConfig, environment={"FSN_DATABASE__DSN": dsn}, overrides={"data_dir": tmp_path})
    assert config.database == DatabaseConfig(dsn=dsn)
    text = config_as_toml(config)
    assert "hush" not in text + repr(config)
    assert tomllib.loads(text)["http"]["port"] == 8080


def test_the_daemons_settings_survive_being_written(tmp_path: Path) -> None:
    """Both daemons read back what `config show` and `node init` write, with every setting in it."""
    coordinator = CoordinatorConfig(data_dir=Path("/d"))
    node = NodeConfig(
        data_dir=Path("/n"),
        name='a "node" \\ ü',
        coordinator=Contact(
            url="http://c:1", peer_id="p", addresses=("/ip4/1.2.3.4/tcp/5", "/dns4/c/tcp/5"), node_id=str(NODE_ID)
        ),
        admin=AdminConfig(port=1),
    )
    file = tmp_path / "c.toml"
    for config in (coordinator, node):
        file.write_text(config_as_toml(config), "utf-8")
        assert load_config(type(config), file=file) == config


NODE_ID = "00000000-0000-4000-8000-000000000001"


def test_a_node_that_names_its_p2p_host_only_keeps_its_free_port(tmp_path: Path) -> None:
    """A node listens on any free port unless told; naming another p2p setting does not move it to the coordinator's port."""
    file = tmp_path / "c.toml"
    file.write_text(
        'data_dir = "/n"\nname = "n"\n[p2p]\nlisten_host = "127.0.0.1"\n[coordinator]\nurl = "http://c:1"\n'
        f'peer_id = "p"\naddresses = []\nnode_id = "{NODE_ID}"\n'
    )
    assert load_config(NodeConfig, file=file).p2p.tcp_port == 0


def test_every_setting_has_a_variable() -> None:
    """A variable's name is the key in capitals, two underscores for each dot."""
    names = {setting.key: setting.environment_variable for setting in settings_of(CoordinatorConfig)}
    assert names["http.port"] == "FSN_HTTP__PORT"
    assert names["database.pool.size"] == "FSN_DATABASE__POOL__SIZE"
    assert len(set(names.values())) == len(names)
