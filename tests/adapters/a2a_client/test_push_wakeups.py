import asyncio

from adapters.a2a_client.push_wakeups import PushWakeups

URL = "https://gateway.example"


async def test_a_bell_works_for_its_agent_and_its_secret_alone_and_while_it_hangs() -> None:
    bells = PushWakeups(URL)
    with bells.register("sales") as bell, bells.register("sales") as other:
        assert bell.url.startswith(f"{URL}/agents/sales/notifications/")
        secret = bell.url.rpartition("/")[2]
        assert len(secret) >= 40 and bell.url != other.url
        assert bells.find("sales", secret) is bell
        assert bells.find("support", secret) is None
        assert bells.find("sales", secret[:-1]) is None and bells.find("sales", "") is None
    assert bells.find("sales", secret) is None


async def test_a_ring_ends_a_pause_even_when_it_came_before_it() -> None:
    with PushWakeups(URL).register("sales") as bell:
        waiting = asyncio.create_task(bell.wait(3600))
        await asyncio.sleep(0)
        assert not waiting.done()
        bell.wake()
        done, _ = await asyncio.wait({waiting}, timeout=60)
        assert done == {waiting}
        bell.wake()
        bell.wake()
        done, _ = await asyncio.wait({again := asyncio.create_task(bell.wait(3600))}, timeout=60)
        assert done == {again}


async def test_without_a_ring_a_pause_ends_by_itself() -> None:
    with PushWakeups(URL).register("sales") as bell:
        await bell.wait(0.001)
        waiting = asyncio.create_task(bell.wait(3600))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


async def test_no_secret_is_kept() -> None:  # attack HOOK-02
    bells = PushWakeups(URL)
    with bells.register("sales") as bell:
        assert bell.url.rpartition("/")[2] not in repr(vars(bells))
