"""A gateway whose keys have 20 tokens a month: `python -m tests.entrypoints.ledger.quota_gateway LEDGER ENDPOINT`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.keys.quota import Quota


class QuotaGateway(Gateway):
    def _quota_lookup(self) -> Callable[[Tenant], Quota | None]:
        return lambda _: Quota(20, "month")


if __name__ == "__main__":
    config = GatewayConfig(model_servers=(sys.argv[2],), api_keys=("one", "two"), ledger=sys.argv[1])
    QuotaGateway(config).run(port=0)
