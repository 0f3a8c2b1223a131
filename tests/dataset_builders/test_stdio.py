"""Output that is discarded, and restored."""

from __future__ import annotations

import os
import sys
from threading import Event, Thread

import pytest

from dataset_builders.stdio import quiet_stdout


def test_output_is_discarded_and_restored(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with quiet_stdout():
            print("lost")
            os.write(1, b"lost")
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    print("shown")
    os.write(1, b"shown\n")
    sys.stdout.flush()
    assert capfd.readouterr().out.split() == ["shown", "shown"]


def test_threads_that_overlap_restore_it(capfd: pytest.CaptureFixture[str]) -> None:
    first_in, second_in, first_out = Event(), Event(), Event()

    def first() -> None:
        with quiet_stdout():
            first_in.set()
            assert second_in.wait(10)
        first_out.set()

    def second() -> None:
        assert first_in.wait(10)
        with quiet_stdout():
            second_in.set()
            assert first_out.wait(10)
            print("lost")

    threads = [Thread(target=each) for each in (first, second)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    print("shown")
    sys.stdout.flush()
    assert capfd.readouterr().out == "shown\n"
