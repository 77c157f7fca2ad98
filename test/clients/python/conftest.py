"""What all tests of clients are given."""

from collections.abc import AsyncIterator

import pytest

from table import Server, server_under_test


@pytest.fixture(scope="session")
def server() -> Server:
    return server_under_test()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """One event loop for all tests, as a program has: some clients keep their connections from one call to the next."""
    yield  # noqa: PT022 (what ends with it is the loop)
