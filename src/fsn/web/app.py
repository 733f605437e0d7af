"""The coordinator's HTTP application: every operation, problems, middleware, metrics."""

from fsn.coord.services import Services
from fsn.runtime.metrics import Readings
from fsn.web.api.auth import declare_auth
from fsn.web.api.credits import declare_credits
from fsn.web.api.earnings import declare_earnings
from fsn.web.api.files import declare_files
from fsn.web.api.health import declare_health
from fsn.web.api.metrics import READINGS, declare_metrics, load_scrape_token
from fsn.web.api.node_proofs import declare_node_proofs
from fsn.web.api.nodes import Addresses, declare_nodes
from fsn.web.api.purchases import declare_purchases
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


def coordinator_operations(
    services: Services, addresses: Addresses, limits: Limits | None = None, scrape_token: str | None = None
) -> Operations:
    """All operations of the API. `addresses` tells nodes where the coordinator listens, given the host name they came by."""
    limits = limits or Limits(LimitsConfig())
    api = Operations(guard_with(services, limits))
    declare_health(api, services)
    declare_auth(api, services, limits)
    declare_uploads(api, services)
    declare_files(api, services)
    declare_nodes(api, services, addresses)
    declare_node_proofs(api, services)
    declare_earnings(api, services)
    declare_purchases(api, services)
    declare_credits(api, services)
    declare_metrics(api, services, scrape_token)
    declare_openapi(api)
    return api


def coordinator_app(
    services: Services, config: HttpConfig, addresses: Addresses, limits: LimitsConfig | None = None
) -> FrontQuart:
    """The application, ready to be served; one for `services`. `limits` not given are those of a configuration that does not mention them.

    Raises ConfigError when the scrape token cannot be read.
    """
    app = FrontQuart("fsn.web")
    install_problems(app)
    scrape_token = load_scrape_token(config.metrics_token_file)
    limiting = Limits(limits or LimitsConfig(), trusted_proxies=config.trusted_proxies)
    app.before_request(limiting.count_unrouted)
    coordinator_operations(services, addresses, limiting, scrape_token).install(app)
    services.metrics.registry.register(Readings(services, READINGS))
    install_docs(app)
    install_middleware(app, metrics=HttpMetrics(services.metrics.registry), cors_origins=config.cors_origins)
    return app
