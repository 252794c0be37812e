"""The worker's connections to Redis, each with the patience that its use needs."""

from dataclasses import dataclass
from typing import Any

from flowtilla.connection import connect, connect_async
from flowtilla.redis_settings import RedisSettings

#: Seconds that connecting may take where a silent Redis is waited for.
_CONNECT = 5.0


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
        return connect(self.settings, socket_timeout=patience, socket_connect_timeout=patience or _CONNECT)

    def asyncio(self, patience: float | None = None) -> Any:
        """Returns an asyncio client; the arguments are those of `blocking`."""
        return connect_async(self.settings, socket_timeout=patience, socket_connect_timeout=patience or _CONNECT)
