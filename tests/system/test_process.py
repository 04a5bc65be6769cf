"""What a process does with its memory, and when it is asked to stop."""

import gc

import pytest

from kdsweep.errors import Interrupted
from kdsweep.system.process import StopRequest, uncollected


def test_nothing_is_collected_inside_and_all_is_as_before_after_it() -> None:
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_request_to_stop_that_nobody_heard_is_found_later() -> None:
    stop = StopRequest()
    stop.check()
    with stop.deferred():
        stop.ask()
    with pytest.raises(Interrupted):
        stop.check()
