"""Which channels are in which bridge, as events tell, so that only they are asked when somebody joins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping


class Bridges:
    """By the channels' names. What events say may be wrong: see `events`."""

    def __init__(self, bridge_of: Mapping[str, str] = {}) -> None:
        self._bridge_of: dict[str, str] = {}
        self._members: defaultdict[str, set[str]] = defaultdict(set)
        for name, bridge in bridge_of.items():
            self.enter(bridge, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bridges) and self._bridge_of == other._bridge_of

    def enter(self, bridge: str, name: str) -> None:
        self.leave(name)
        self._bridge_of[name] = bridge
        self._members[bridge].add(name)

    def leave(self, name: str) -> None:
        bridge = self._bridge_of.pop(name, "")
        members = self._members[bridge]
        members.discard(name)
        if not members:
            del self._members[bridge]

    def around(self, names: Iterable[str]) -> set[str]:
        """These, who is in a bridge with them, and so on through the halves of Local channels."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._next_to(name)
        return found

    def _next_to(self, name: str) -> Iterator[str]:
        yield from self._members.get(self._bridge_of.get(name, ""), ())
        if name[-2:] in (";1", ";2"):
            yield name[:-1] + ("2" if name.endswith("1") else "1")
