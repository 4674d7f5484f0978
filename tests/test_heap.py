"""Objects of modules are exempt from garbage collection inside a context, and a process skips its last collection."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator

import pytest

from xdub.heap import frozen_heap


class Node:
    """An object that can refer to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def thaw() -> Iterator[Callable[[], None]]:
    """Return a function that ends the freeze of the suite, which begins after fixtures; freeze the heap again."""
    yield gc.unfreeze
    gc.freeze()


def test_older_objects_are_exempt_inside_the_context_and_scanned_again_after_it(thaw) -> None:
    thaw()
    old = Node()
    with frozen_heap():
        assert gc.get_freeze_count() > 0
        assert not any(each is old for each in gc.get_objects())
    assert gc.get_freeze_count() == 0
    assert any(each is old for each in gc.get_objects())


def test_a_cycle_that_arises_inside_the_context_is_collected_inside_it(thaw) -> None:
    thaw()
    with frozen_heap():
        reference = weakref.ref(Node())
        gc.collect()
        assert reference() is None


def test_a_cycle_that_is_older_than_the_context_is_collected_after_it(thaw) -> None:
    thaw()
    gc.disable()
    try:
        reference = weakref.ref(Node())
        with frozen_heap():
            gc.collect()
            assert reference() is not None
        gc.collect()
        assert reference() is None
    finally:
        gc.enable()


def test_the_heap_thaws_after_an_error_and_an_inner_context_leaves_it_frozen(thaw) -> None:
    thaw()
    with pytest.raises(ZeroDivisionError), frozen_heap():
        with frozen_heap():
            pass
        assert gc.get_freeze_count() > 0, "the outer context has not ended"
        raise ZeroDivisionError
    assert gc.get_freeze_count() == 0


LAST_COLLECTION = """
import atexit, gc, logging, sys
from xdub.heap import skip_last_collection

class Node:
    def __init__(self):
        self.itself = self

    def __del__(self):
        print("collected")

gc.disable()
if sys.argv[1] == "skip":
    skip_last_collection()
atexit.register(lambda: print("exit"))
handler = logging.FileHandler(sys.argv[2])
handler.stream.write("written")
for _ in range(3):
    Node()
"""


@pytest.mark.parametrize(("mode", "printed"), [("skip", "exit\n"), ("keep", "exit\n" + 3 * "collected\n")])
def test_a_process_skips_its_last_collection_and_writes_all_output(mode: str, printed: str, tmp_path) -> None:
    command = [sys.executable, "-c", LAST_COLLECTION, mode, str(tmp_path / "log")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == printed
    assert (tmp_path / "log").read_text() == "written"
