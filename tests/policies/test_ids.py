import threading

from policies.ids import new_id


def test_ids_are_never_the_same_in_any_thread() -> None:
    drawn: list[list[str]] = []

    def draw() -> None:
        drawn.append([new_id("t") for _ in range(5000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [name for names in drawn for name in names]
    assert len(set(everything)) == 20_000
    assert {len(name) for name in everything} == {len("t_") + 31}


def test_later_ids_sort_later() -> None:
    assert new_id("t")[:13] <= new_id("t")[:13]
