"""Signals during a training: deferred, received once, and the alarm of a time limit."""

import os
import signal
import threading
import time

import pytest

from zoo.engine.runtime.signals import Alarm, Interrupts, deferred_signals


def test_deferred_signals_raise_after_the_block():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        interrupt_twice(steps)
    assert steps == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupt_twice(steps):
    with deferred_signals():
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("first")
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("second")


def interrupt(interrupts, deferring, times, steps):
    with interrupts:
        interrupts.deferring = deferring
        for number in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            steps.append(number)
        interrupts.raise_received()


@pytest.mark.parametrize(
    ("deferring", "times", "completed"), [(True, 1, [0]), (True, 2, [0]), (False, 1, [])]
)
def test_first_deferred_signal_is_received_and_a_second_one_raises(deferring, times, completed):
    steps = []
    with pytest.raises(KeyboardInterrupt):
        interrupt(Interrupts(), deferring, times, steps)
    assert steps == completed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_received_signal_is_raised_at_the_end_of_the_block():
    received = []
    with pytest.raises(KeyboardInterrupt):
        receive(Interrupts(), received)
    assert received == [signal.SIGINT]


def receive(interrupts, received):
    with interrupts:
        interrupts.deferring = True
        os.kill(os.getpid(), signal.SIGINT)
        received.append(interrupts.received)


def test_ignored_signal_stays_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            interrupts.deferring = True
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.received is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.fixture
def own_alarm():
    """Without the alarm of a test's own time limit."""
    remaining, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, remaining)


def test_alarm_interrupts_a_block_or_is_deferred(own_alarm):
    with pytest.raises(Alarm), Interrupts(0.01):
        time.sleep(10)
    received = []
    with pytest.raises(Alarm):
        await_alarm(Interrupts(0.01), received)
    assert received == [signal.SIGALRM]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def await_alarm(interrupts, received):
    with interrupts:
        interrupts.deferring = True
        time.sleep(0.05)
        received.append(interrupts.received)
        interrupts.raise_received()


def test_other_threads_receive_nothing():
    outcomes = []

    def run():
        with Interrupts(0.01) as interrupts:
            interrupts.deferring = True
            interrupts.raise_received()
        outcomes.append(interrupts.received)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert outcomes == [None]
