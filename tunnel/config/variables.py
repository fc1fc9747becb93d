"""The environment variables that are about this process, so that no other program may take them for its own.

Knows their names; must not know what they mean.
"""

from __future__ import annotations

from typing import Final

from tunnel.config.sources import FLAGS

SOCKETS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")  # sd_listen_fds(3)
MANAGER: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")  # sd_notify(3), sd_watchdog_enabled(3)
SECRETS: Final = tuple(flag.env for flag in FLAGS if flag.is_secret and flag.env)
