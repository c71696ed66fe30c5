"""Holds a DataTree against the model, and two DataTrees against each other."""

from __future__ import annotations

from tests.datatree.tree_model import ModelTree

from zkpy.datatree.digest import tree_digest
from zkpy.datatree.tree import DataTree
from zkpy.protocol.records import Stat

Content = dict[str, tuple[bytes | None, object, bytes, set[str]]]


def content(tree: DataTree) -> Content:
    """Each node's data, ACL list, stat and children, whatever the numbers of the ACL lists."""
    return {
        path: (node.data, tree.acls_of(node), node.stat, set(node.children or ()))
        for path, node in tree.nodes.items()
    }


def check_inner_consistency(tree: DataTree) -> None:
    """What holds for every tree between two transactions."""
    nodes = tree.nodes
    assert nodes[""] is nodes["/"]
    for path, node in nodes.items():
        assert node.children is None or len(node.children) > 0
        for child in node.children or ():
            assert child in nodes
            assert child.rpartition("/")[0] == ("" if path == "/" else path)
        if path not in ("", "/"):
            above = nodes[path.rpartition("/")[0]]
            assert above.children is not None
            assert path in above.children
    used = {node.acl for node in nodes.values()}
    assert used <= set(tree.acl_cache.by_id)
    assert {acl_id for acl_id, _ in tree.acl_cache.entries()} == used - {-1}
    assert tree.ephemerals_count == sum(len(paths) for paths in tree.ephemerals.values())
    if tree.count_digest:
        assert tree.digest == tree_digest(nodes)


def check_against_model(tree: DataTree, model: ModelTree) -> None:
    """Everything a client or a snapshot can see is as the model says."""
    nodes = {path: node for path, node in tree.nodes.items() if path}
    assert nodes.keys() == model.nodes.keys()
    for path, node in nodes.items():
        expected = model.nodes[path]
        assert node.data == expected.data, path
        assert tree.acls_of(node) == expected.acls, path
        assert Stat.decode(tree.wire_stat(node))[0] == model.stat(path), path
        names = {child.rpartition("/")[2] for child in model.children(path)}
        assert set(tree.child_names(path, node)) == names
        assert len(tree.child_names(path, node)) == len(names)
    assert tree.sessions == model.sessions
    owned = {session: set(paths) for session, paths in tree.ephemerals.items() if paths}
    assert owned == model.ephemerals()
    assert set(tree.containers) == model.containers()
    assert set(tree.ttls) == model.ttls()
    assert tree.quota.paths == model.tracked
    assert tree.data_size == model.data_size()
    assert tree.node_count() == len(model.nodes) + 1
