"""Output of other code is kept off stdout, in several threads at a time."""

from __future__ import annotations

import subprocess
import sys
from threading import Barrier, Thread

import pytest

from dataset_builders.stdio import quiet_stdout


def test_overlapping_users_leave_stdout_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    inside, first_left = Barrier(2), Barrier(2)

    def first() -> None:
        with quiet_stdout():
            inside.wait(10)
            print("noise of the first")
        first_left.wait(10)

    def second() -> None:
        with quiet_stdout():
            inside.wait(10)
            first_left.wait(10)
            print("noise of the second")
            subprocess.run([sys.executable, "-c", "print('noise of a child')"], check=True)

    stdout = sys.stdout
    threads = [Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is stdout
    print("heard")
    subprocess.run([sys.executable, "-c", "print('of a child')"], check=True)
    assert capfd.readouterr().out.split() == ["heard", "of", "a", "child"]


def test_it_ends_with_an_exception_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), quiet_stdout(), quiet_stdout():
        raise KeyError(print("noise"))
    print("heard")
    assert capfd.readouterr().out == "heard\n"
