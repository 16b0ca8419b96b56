"""The modules of zoo.registry have no import cycle, type-only imports counted."""

from graphlib import TopologicalSorter

import grimp


def test_registry_has_no_import_cycle():
    graph = grimp.build_graph("zoo", exclude_type_checking_imports=False, cache_dir=None)
    modules = graph.find_children("zoo.registry")
    imports = {
        module: graph.find_modules_directly_imported_by(module) & modules for module in modules
    }
    assert "zoo.registry.derived" in imports["zoo.registry.config"]  # imported for its types
    assert set(TopologicalSorter(imports).static_order()) == modules
