"""One elastic pool of stateful workers, on which prepare, import, pairs, render and encode run.

A worker loads its networks once and then processes units. Outcomes arrive in the order of the units, whatever dies.
"""

from xdub.pool.pool import WorkerPool
from xdub.pool.worker import Worker
from xdub.pool.workers import PoolState, Workers, pool_size

__all__ = ["PoolState", "Worker", "WorkerPool", "Workers", "pool_size"]
