"""Virtual time: calls in the order of their times, equal times in the order of asking."""

from __future__ import annotations

from zkpy.testing.scheduler import MS, SECOND, Scheduler


def test_order() -> None:
    scheduler = Scheduler()
    said: list[str] = []
    scheduler.after(2000, said.append, "late")
    scheduler.after(1000, said.append, "first")
    scheduler.after(1000, said.append, "second")
    while scheduler.step():
        pass
    assert said == ["first", "second", "late"]
    assert scheduler.now_us == 2000
    assert scheduler.now_ms == 2
    assert not scheduler.step()


def test_calls_that_ask_for_calls() -> None:
    scheduler = Scheduler()
    times: list[int] = []

    def again() -> None:
        times.append(scheduler.now_us)
        if len(times) < 3:
            scheduler.after(10, again)

    scheduler.after(5, again)
    scheduler.run_until(1 * MS)
    assert times == [5, 15, 25]
    assert scheduler.now_us == MS


def test_run_while() -> None:
    scheduler = Scheduler()
    said: list[int] = []
    for number in range(5):
        scheduler.after(number * SECOND, said.append, number)
    assert scheduler.run_while(lambda: len(said) < 3, 10 * SECOND)
    assert said == [0, 1, 2]
    assert not scheduler.run_while(lambda: True, SECOND)
    assert said == [0, 1, 2, 3]
    assert scheduler.now_us == 3 * SECOND
    assert not scheduler.run_while(lambda: True, 10 * SECOND)
    assert scheduler.now_us == 13 * SECOND
