"""Every open connection is looked at once in a round, by one timer that ends with the last of them."""

from collections import Counter
from typing import Any

from gateway.server.sockets.look_rounds import PARTS, LookRounds
from tests.fakes.sockets import FakeLoop


class Watched:
    """A connection that counts looks, and may close itself or another when it is looked at."""

    def __init__(self, name: str, loop: FakeLoop, looks: Counter[str], closes: Any = None) -> None:
        self.name = name
        self.loop: Any = loop
        self._looks = looks
        self._closes = closes

    def look(self) -> None:
        self._looks[self.name] += 1
        if self._closes is not None:
            self._closes()


def test_each_connection_is_looked_at_once_in_a_round() -> None:
    loop, looks = FakeLoop(), Counter[str]()
    rounds = LookRounds(8.0)
    for number in range(3 * PARTS):
        rounds.add(Watched(f"c{number}", loop, looks))
        loop.pass_time(0.5)
    looks.clear()
    loop.pass_time(8.0)
    assert looks == Counter({f"c{number}": 1 for number in range(3 * PARTS)})
    assert len(loop.timers) == 1


def test_a_new_connection_is_looked_at_after_a_whole_round() -> None:
    loop, looks = FakeLoop(), Counter[str]()
    rounds = LookRounds(8.0)
    rounds.add(Watched("first", loop, looks))
    loop.pass_time(3.5)
    rounds.add(Watched("second", loop, looks))
    loop.pass_time(7.0)
    assert looks == {"first": 1}
    loop.pass_time(1.0)
    assert looks == {"first": 1, "second": 1}


def test_a_connection_that_a_look_closes_is_not_looked_at_again() -> None:
    loop, looks = FakeLoop(), Counter[str]()
    rounds = LookRounds(8.0)
    connection: Watched = Watched("one", loop, looks, lambda: rounds.discard(connection))
    rounds.add(connection)
    rounds.add(Watched("other", loop, looks))
    loop.pass_time(24.0)
    assert (looks["one"], looks["other"], len(rounds)) == (1, 3, 1)


def test_without_connections_there_is_no_timer() -> None:
    loop, looks = FakeLoop(), Counter[str]()
    rounds = LookRounds(8.0)
    connection = Watched("one", loop, looks)
    rounds.add(connection)
    rounds.discard(connection)
    rounds.discard(connection)
    assert len(rounds) == 0 and not [timer for timer in loop.timers if timer.live]
