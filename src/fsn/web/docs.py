"""`GET /openapi.json`, and `/docs`: Swagger UI over it, from files in an installed package, with nothing from any other host."""

from importlib.metadata import distribution
from pathlib import Path

import msgspec
from quart import Response, send_file

from fsn.core.errors import NotFound
from fsn.core.version import VERSION
from fsn.web.auth import SCHEMES
from fsn.web.openapi import Json, openapi_document
from fsn.web.operations import Operations
from fsn.web.quart_front import FrontQuart

__all__ = ["coordinator_document", "declare_openapi", "install_docs"]

ABOUT = """\
Stores files on a federated network of storage nodes.

A JSON body is taken under any content type; members and parameters that are not declared are refused. Lists are paged:
`next_cursor` of one page is `cursor` of the next, null on the last. GET also answers HEAD. Errors are `application/problem+json`
(RFC 9457) with a stable `code`; a path that does not exist is 404 `not_found`, a method that a path does not have 405
`method_not_allowed`, and a message that is not proper HTTP 400 `bad_http`. Members may be added to answers at any time."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing but what we serve ourselves, and neither script nor style inline: a browser-marked test looks whether Swagger UI complains."""
ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
KEPT_SECONDS = 86_400
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fsn coordinator: HTTP API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<body>
<div id="ui"><noscript>This page needs JavaScript; <a href="openapi.json">the document itself</a> does not.</noscript></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = """\
"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  validatorUrl: null, // a service elsewhere
  presets: [SwaggerUIBundle.presets.apis],
});
"""


def coordinator_document(api: Operations) -> Json:
    """The OpenAPI document of the coordinator."""
    return openapi_document(api, title="fsn coordinator", version=VERSION, description=ABOUT, schemes=SCHEMES)


def declare_openapi(api: Operations) -> None:
    """Add the operation that gives the document of all operations of `api`; of those that are declared later, too."""
    encoded: list[bytes] = []

    @api.operation(
        "GET", "/openapi.json", summary="This document", tags=("health",), produces="application/json",
    )  # fmt: skip
    async def get_openapi() -> Response:
        """OpenAPI 3.1."""
        if not encoded:
            encoded.append(msgspec.json.encode(coordinator_document(api)))
        return Response(encoded[0], content_type="application/json")


def install_docs(app: FrontQuart) -> None:
    """Serve the page and what it needs below `/docs`."""
    folder = Path(str(distribution("flask-swagger-ui").locate_file("flask_swagger_ui/dist")))

    async def docs_page() -> Response:
        return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})

    async def docs_start() -> Response:
        return Response(START, content_type="text/javascript; charset=utf-8")

    async def docs_file(name: str) -> Response:
        if name not in ASSETS:
            raise NotFound("there is no such file")
        response = await send_file(folder / name, mimetype=ASSETS[name], cache_timeout=KEPT_SECONDS)
        response.content_type = ASSETS[name]
        return response

    app.add_url_rule("/docs", "docs_page", docs_page, methods=["GET"])
    app.add_url_rule("/docs/start.js", "docs_start", docs_start, methods=["GET"])
    app.add_url_rule("/docs/<name>", "docs_file", docs_file, methods=["GET"])
