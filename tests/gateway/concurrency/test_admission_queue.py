"""Who waits, who is refused, and who starts next."""

from gateway.concurrency.admission_queue import AdmissionQueue


class Request:
    """A request that is never started."""

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self) -> bool:
        return True

    def refuse(self) -> None:
        """Does nothing."""


def fill(queue: AdmissionQueue, owner: str, count: int, now: float = 0.0) -> int:
    """Adds up to `count` requests; returns how many the queue took."""
    return sum(queue.add(owner, Request(owner), now) for _ in range(count))


def names(queue: AdmissionQueue, count: int) -> list[str]:
    popped = [queue.pop() for _ in range(count)]
    return [request.name for request in popped if isinstance(request, Request)]


def test_users_of_a_tenant_take_turns_however_many_requests_one_has() -> None:
    queue = AdmissionQueue(100)
    fill(queue, "t|i|flood", 40)
    fill(queue, "t|i|bob", 2)
    assert names(queue, 5) == ["t|i|flood", "t|i|bob", "t|i|flood", "t|i|bob", "t|i|flood"]


def test_tenants_take_turns_however_many_users_one_has() -> None:
    queue = AdmissionQueue(100)
    for number in range(20):
        fill(queue, f"big|i|{number}", 1)
    fill(queue, "small|i|olga", 2)
    assert names(queue, 4).count("small|i|olga") == 2


# attack AVL-03
def test_a_flood_leaves_room_for_another_user_and_another_tenant() -> None:
    queue = AdmissionQueue(100)
    assert fill(queue, "t|i|flood", 1000) == 50
    assert fill(queue, "t|i|bob", 5) == 5
    for number in range(1000):
        fill(queue, f"t|i|{number}", 1)
    assert len(queue) < 100
    assert fill(queue, "other|i|olga", 5) == 5


def test_what_has_waited_too_long_is_returned_and_gives_its_place_back() -> None:
    queue = AdmissionQueue(10)
    assert fill(queue, "t|i|ann", 9, now=1.0) == 5
    assert fill(queue, "t|i|bob", 1, now=2.0) == 1
    assert len(queue.pop_older(1.5)) == 5 and len(queue) == 1
    assert fill(queue, "t|i|ann", 9, now=3.0) == 5
    assert names(queue, 9).count("t|i|bob") == 1 and queue.pop() is None


def test_a_queue_of_no_length_takes_nothing() -> None:
    queue = AdmissionQueue(0)
    assert not queue.has_room("t|i|ann") and fill(queue, "t|i|ann", 1) == 0
