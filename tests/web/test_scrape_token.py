"""The file with the token that `/metrics` wants."""

from pathlib import Path

import pytest

from fsn.core.errors import ConfigError
from fsn.web.api.metrics import load_scrape_token


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff"])
def test_a_token_file_that_cannot_be(tmp_path: Path, content: bytes | None) -> None:
    """One that is missing, empty or no text stops the start, with its name."""
    file = tmp_path / "metrics.token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"metrics_token_file.*metrics\.token"):
        load_scrape_token(file)
    assert load_scrape_token(None) is None
