"""What a process does with its memory."""

import gc

from kdsweep.system.process import uncollected


def test_nothing_is_collected_inside_and_all_is_as_before_after_it() -> None:
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
