"""Modules that libraries import and most commands never use: each is loaded at its first use."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

# Imported by trio and by the C part of gRPC. They load the OpenSSL of the system, besides ours: 5 MiB and 20 ms of a start.
_DEFERRED = ("asyncio", "hmac", "ssl")


class _DeferredModule(ModuleType):
    """Stands for a module until something in it is needed."""

    def __getattr__(self, name: str) -> Any:
        """Load the module, and take what is in it."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]  # another thread may do the same, and then waits for the import
        module = import_module(self.__name__)
        vars(self).update(vars(module))
        return getattr(module, name)


def defer_modules() -> None:
    """Defer the modules that are not loaded yet; call it before the first import of a library."""
    for name in _DEFERRED:
        sys.modules.setdefault(name, _DeferredModule(name))
