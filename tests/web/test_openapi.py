"""The OpenAPI document as it is made: valid, complete, and without two words for one thing."""

import json
import re

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from fsn.core.errors import Refused
from fsn.web.docs import coordinator_document
from fsn.web.openapi import problems_of
from fsn.web.operations import Answer, Operations
from fsn.web.problems import status_of
from tests.web.api.conftest import Document
from tools.http_reference import coordinator_api
from tools.reference import finer_codes

CLIENTS_OWN = {
    "ambiguous_name", "download_under_way", "drain_cancelled", "file_changed", "in_use", "left", "local_exists", "local_not_found",
    "maintenance_refused",
}  # fmt: skip
"""Finer codes that never come over HTTP: the command line's, the client's, the daemons' own."""


@pytest.fixture(scope="module")
def document() -> Document:
    """As it is served."""
    encoded = msgspec.json.encode(coordinator_document(coordinator_api()))
    return Document(json.loads(encoded))


def test_the_document_is_valid(document: Document) -> None:
    """It is OpenAPI 3.1, with each reference pointing somewhere."""
    OpenAPIV31SpecValidator(document.whole).validate()


def test_every_operation_is_told(document: Document) -> None:
    """Each has its path, its body, its security and at least one answer that is a success."""
    for operation in coordinator_api():
        told = document.operation(operation.method, re.sub("<uuid:(.*?)>", r"{\1}", operation.rule))
        assert told["operationId"] == operation.operation_id
        assert ("requestBody" in told) is any((operation.body, operation.raw, operation.form))
        assert told["security"] == [{scheme: []} for scheme in operation.security]
        assert any(status.startswith("2") for status in told["responses"])


def test_every_code_is_declared_somewhere() -> None:
    """A finer code that some service of the coordinator raises is one that an operation declares, under its status."""
    declared = {
        (code, status)
        for operation in coordinator_api()
        for status, codes in problems_of(operation).items()
        for code in codes
    }
    raised = {(code, int(status_of(kind))) for code, kind in finer_codes() if code not in CLIENTS_OWN}
    assert raised <= declared
    assert {code for code, _ in finer_codes()} >= CLIENTS_OWN


def test_a_status_that_is_told_in_two_ways_is_a_mistake() -> None:
    """An answer cannot be both a problem of ours and something else."""
    api = Operations()

    @api.operation("GET", "/x", summary="x", answers=(Answer(status=400, summary="no"),), errors=(Refused,))
    async def get_x() -> None:
        """Nothing."""

    with pytest.raises(AssertionError, match="two ways"):
        coordinator_document(api)
