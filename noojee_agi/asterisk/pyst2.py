"""pyst2's AGI: its only importer, since that takes care.

It imports pprint for debugging output, and with that dataclasses, inspect and dis: a tenth of what a caller
waits for. importlib.util.LazyLoader would load all of that as soon as the module is named.
"""

import importlib
import sys
from types import ModuleType


class _ImportedWhenUsed(ModuleType):
    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module(self.__name__), name)


_is_there = "pprint" in sys.modules
sys.modules.setdefault("pprint", _ImportedWhenUsed("pprint"))
from asterisk.agi import AGI, AGIHangup  # noqa: E402

if not _is_there:
    del sys.modules["pprint"]  # whoever else imports it gets it

__all__ = ["AGI", "AGIHangup"]
