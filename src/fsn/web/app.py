"""The coordinator's HTTP application: every operation, problems, middleware, metrics."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from quart import Response

from fsn.coord.services import Services
from fsn.web.api.auth import declare_auth
from fsn.web.api.credits import declare_credits
from fsn.web.api.files import declare_files
from fsn.web.api.health import declare_health
from fsn.web.api.nodes import Addresses, declare_nodes
from fsn.web.api.uploads import declare_uploads
from fsn.web.auth import guard_with
from fsn.web.config import HttpConfig, LimitsConfig
from fsn.web.docs import declare_openapi, install_docs
from fsn.web.limits import Limits
from fsn.web.middleware import HttpMetrics, install_middleware
from fsn.web.operations import Operations
from fsn.web.problems import install_problems
from fsn.web.quart_front import FrontQuart

__all__ = ["coordinator_app", "coordinator_operations"]


def coordinator_operations(services: Services, addresses: Addresses, limits: Limits | None = None) -> Operations:
    """All operations of the API. `addresses` tells nodes where the coordinator listens, given the host name they came by."""
    limits = limits or Limits(LimitsConfig())
    api = Operations(guard_with(services, limits))
    declare_health(api, services)
    declare_auth(api, services, limits)
    declare_uploads(api, services)
    declare_files(api, services)
    declare_nodes(api, services, addresses)
    declare_credits(api, services)
    declare_openapi(api)
    return api


def coordinator_app(
    services: Services, config: HttpConfig, addresses: Addresses, limits: LimitsConfig | None = None
) -> FrontQuart:
    """The application, ready to be served; `limits` not given are those of a configuration that does not mention them."""
    app = FrontQuart("fsn.web")
    registry = CollectorRegistry()
    install_problems(app)
    limiting = Limits(limits or LimitsConfig(), trusted_proxies=config.trusted_proxies)
    app.before_request(limiting.count_unrouted)
    coordinator_operations(services, addresses, limiting).install(app)
    install_docs(app)
    _install_metrics(app, services, registry)
    install_middleware(app, metrics=HttpMetrics(registry), cors_origins=config.cors_origins)
    return app


def _install_metrics(app: FrontQuart, services: Services, registry: CollectorRegistry) -> None:
    nodes = Gauge(
        "fsn_nodes_online", "Storage nodes that are connected here and were heard of lately.", registry=registry
    )
    nodes.set_function(lambda: services.membership.counts["online"])

    async def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    app.add_url_rule("/metrics", "metrics", metrics, methods=["GET"])
