"""No module of zoo.registry imports another in a circle, type-only imports counted."""

from graphlib import TopologicalSorter

import grimp


def test_no_circle():
    graph = grimp.build_graph("zoo", exclude_type_checking_imports=False, cache_dir=None)
    room = graph.find_children("zoo.registry")
    needs = {module: graph.find_modules_directly_imported_by(module) & room for module in room}
    assert "zoo.registry.derived" in needs["zoo.registry.config"]  # imported for its types
    assert set(TopologicalSorter(needs).static_order()) == room
