"""Encoded tasks: the least asked for goes first, and what is large is not kept."""

from gateway.tasks.events.encoded_tasks import BYTES_MAX, TASK_BYTES_MAX, EncodedForm, EncodedTasks


def form_of(number: int, last_seq: int = 3) -> EncodedForm:
    return EncodedForm("default", f"t_{number}", last_seq, 0, has_artifacts=False)


def test_an_encoded_task_is_found_by_all_that_it_shows() -> None:
    encoded = EncodedTasks()
    kept = encoded.keep(form_of(1), b'{"id":"t_1"}')
    assert encoded.find(form_of(1)) is kept
    assert encoded.find(form_of(1, last_seq=4)) is None
    assert encoded.find(form_of(1)._replace(history_length=1)) is encoded.find(form_of(1)._replace(has_artifacts=True)) is None
    assert encoded.find(form_of(1)._replace(tenant="other")) is None


def test_the_task_not_asked_for_longest_goes_first() -> None:
    encoded, large = EncodedTasks(), b" " * (TASK_BYTES_MAX - 500)
    count = BYTES_MAX // TASK_BYTES_MAX
    for number in range(count):
        encoded.keep(form_of(number), large)
    assert encoded.find(form_of(0)) is not None
    encoded.keep(form_of(count), large)
    assert encoded.find(form_of(0)) is not None and encoded.find(form_of(1)) is None


def test_a_task_over_the_bound_is_not_kept() -> None:
    encoded = EncodedTasks()
    assert bytes(memoryview(encoded.keep(form_of(1), b" " * (TASK_BYTES_MAX + 1)))).isspace()
    assert encoded.find(form_of(1)) is None
