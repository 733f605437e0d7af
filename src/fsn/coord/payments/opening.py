"""Which payment provider the settings ask for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fsn.coord.config import PaymentsConfig
from fsn.coord.payments.provider import Mock, PaymentProvider
from fsn.core.errors import ConfigError
from fsn.runtime.private_files import read_secret

__all__ = ["open_provider"]


@asynccontextmanager
async def open_provider(config: PaymentsConfig) -> AsyncIterator[PaymentProvider]:
    """The provider that the settings ask for, for the length of the block. Raises ConfigError when its keys cannot be read."""
    if config.stripe_key_file is None or config.stripe_webhook_secret_file is None or config.return_url is None:
        yield Mock()
        return
    # The library is loaded only where it is used: a quarter of a second, and 20 MB.
    from fsn.coord.payments.stripe_checkout import StripeKeys, open_stripe

    keys = StripeKeys(
        _read(config.stripe_key_file, "stripe_key_file"),
        _read(config.stripe_webhook_secret_file, "stripe_webhook_secret_file"),
    )
    async with open_stripe(keys, config.return_url, config.stripe_api_url) as provider:
        yield provider


def _read(file: Path, setting: str) -> str:
    found = read_secret(file, f"payments.{setting}")
    if not found.isascii() or any(each.isspace() for each in found):
        raise ConfigError(f"payments.{setting}: one line with the secret is wanted in {file}")
    return found
