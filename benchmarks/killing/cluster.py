"""A Ray cluster of a head and two nodes on this box, one of which is removed. Imports ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

_nodes: list[Any] = []
_clusters: list[Any] = []


@contextmanager
def two_nodes() -> Iterator[str]:
    """Start a head without CPUs and two nodes of one CPU each; give its address."""
    import finesweep.scheduling.ray_start  # noqa: F401  # sets Ray up before it is imported

    # isort: split
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    _clusters.append(cluster)
    _nodes.extend(cluster.add_node(num_cpus=1) for _ in range(2))
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    try:
        yield str(cluster.address)
    finally:
        _nodes.clear()
        _clusters.remove(cluster)
        cluster.shutdown()


def remove_one(draw: Random) -> None:
    """Kill one of the nodes, with all that runs on it."""
    [cluster] = _clusters
    cluster.remove_node(_nodes.pop(draw.randrange(len(_nodes))), allow_graceful=False)
