"""The committed protobuf code is what storage.proto generates."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

from fsn.p2p.wire import storage_pb2

WIRE = Path(storage_pb2.__file__).parent
SOURCE = WIRE.parents[2]
PROTOS = ("storage.proto", "discovery.proto")
MYPY_PROTOBUF = "5.1.0"  # wrote the committed .pyi; other versions write other stubs for the same file


def generate(folder: Path) -> None:
    # `make proto` is this command with the source folder for `folder`.
    plugin = Path(sys.executable).parent / "protoc-gen-mypy"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCE}", f"--plugin=protoc-gen-mypy={plugin}"]
    command += [f"--python_out={folder}", f"--mypy_out=quiet:{folder}", *(str(WIRE / name) for name in PROTOS)]
    subprocess.run(command, check=True, timeout=60)


def protoc_version() -> str:
    command = [sys.executable, "-m", "grpc_tools.protoc", "--version"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return answer.removeprefix("libprotoc").strip()


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def test_generated_code_is_current(tmp_path: Path) -> None:
    """Generating again gives the committed files, so that nobody edits them and nobody forgets them."""
    if find_spec("grpc_tools") is None or installed("mypy-protobuf") != MYPY_PROTOBUF:
        pytest.skip(f"needs grpcio-tools and mypy-protobuf {MYPY_PROTOBUF}; found {installed('mypy-protobuf')}")
    stamp = re.search(r"Protobuf Python Version: \d+\.(\S+)", (WIRE / "storage_pb2.py").read_text())
    assert stamp is not None
    if protoc_version() != stamp[1]:
        pytest.skip(f"needs the protoc that wrote the committed files, {stamp[1]}; found {protoc_version()}")
    generate(tmp_path)
    for name in (proto.replace(".proto", suffix) for proto in PROTOS for suffix in ("_pb2.py", "_pb2.pyi")):
        assert (tmp_path / "fsn/p2p/wire" / name).read_text() == (WIRE / name).read_text()
