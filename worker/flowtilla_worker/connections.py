"""The worker's connections to Redis, each with the patience that its use needs."""

from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from flowtilla.settings import RedisSettings


@dataclass(frozen=True)
class Connections:
    """Opens connections to one Redis.

    Args:
        settings: which Redis.
    """

    settings: RedisSettings

    def blocking(self, patience: float | None = None) -> Any:
        """Returns a blocking client.

        Args:
            patience: seconds until a silent Redis counts as away; None never.
        """
        return redis.Redis.from_url(
            self._url, socket_timeout=patience, socket_connect_timeout=patience, retry=Retry(NoBackoff(), 0)
        )

    def asyncio(self, patience: float | None = None) -> Any:
        """Returns an asyncio client; the arguments are those of `blocking`."""
        return redis.asyncio.Redis.from_url(
            self._url,
            socket_timeout=patience,
            socket_connect_timeout=patience or 5.0,
            retry=AsyncRetry(NoBackoff(), 0),
        )

    @property
    def _url(self) -> str:
        return self.settings.url.get_secret_value()
