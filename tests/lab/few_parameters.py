"""A plugin of pytest (-p lab.few_parameters): each test with five of its parameters, the first among them.

For a further Python: where one parameter passes on it, hardly another one fails that passes elsewhere.
"""

from __future__ import annotations

import itertools

import pytest

MOST = 5


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = []
    for _, tests in itertools.groupby(items, key=lambda item: item.nodeid.partition("[")[0]):
        parameters = [*tests]
        kept += parameters[:: -(-len(parameters) // MOST)]
    left_out = {*items} - {*kept}
    config.hook.pytest_deselected(items=[*left_out])
    items[:] = kept
