"""The export of traces of a process, if it is configured."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from tunnel.config.model import Traces
from tunnel.listener.shared_resources import SharedResources

if TYPE_CHECKING:  # loaded only when traces are exported
    from tunnel.tracing.trace_export import TraceExport

_FLUSH_LIMIT: Final = 2.0  # seconds for the export of the last traces


class ProcessTraces:
    """Exports traces of connections between `start` and `stop`; `warn` may be called on any thread."""

    def __init__(
        self,
        config: Traces | None,
        shared: SharedResources,
        info: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._config = config
        self._shared = shared
        self._info = info
        self._warn = warn
        self._export: TraceExport | None = None

    def start(self) -> None:
        """Export traces from now on; raises ConfigError."""
        if self._config is not None:
            from tunnel.tracing.trace_export import open_traces

            self._export = open_traces(self._config, self._info, self._warn)
            self._export.start()
            self._shared.observers.append(self._export.add)

    async def stop(self) -> None:
        """Export the last traces, and log how many were dropped."""
        if self._export is not None:
            await trio.to_thread.run_sync(self._export.stop, _FLUSH_LIMIT, abandon_on_cancel=True)
            self._info(f"stopped exporting traces: {self._export.summary()}")
