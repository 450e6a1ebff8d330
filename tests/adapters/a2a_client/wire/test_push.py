import json

import pytest
from msgspec import UNSET

from adapters.a2a_client.wire import v03, v1
from adapters.a2a_client.wire.push import (
    PushListParams,
    PushParams,
    push_config_json_0_3,
    read_push_config,
    read_push_config_0_3,
    read_push_list_params,
    read_push_params,
    read_push_params_0_3,
)
from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import PushAuthentication, PushConfig, encode

WHOLE = PushConfig(
    url="https://hook.example/x",
    id="c1",
    task_id="t1",
    token="t0ken",
    authentication=PushAuthentication("Bearer", "s3cret"),
    tenant="sales",
)


def test_a_config_of_1_0_is_read_as_it_is_written() -> None:

    assert read_push_config(json.loads(encode(WHOLE))) == WHOLE


def test_null_means_absent() -> None:
    read = read_push_config({"taskId": "t1", "url": "https://hook.example", "authentication": None, "token": None})
    assert read == PushConfig(url="https://hook.example", task_id="t1")


def test_a_config_of_0_3_keeps_all_that_0_3_can_say() -> None:
    inner = {"id": "c1", "url": WHOLE.url, "token": "t0ken", "authentication": {"schemes": ["Bearer"], "credentials": "s3cret"}}
    read = read_push_config_0_3({"taskId": "t1", "pushNotificationConfig": inner})
    assert read == PushConfig(url=WHOLE.url, id="c1", task_id="t1", token="t0ken", authentication=WHOLE.authentication)


def test_what_is_written_as_0_3_has_no_secret() -> None:  # attack HOOK-02
    written = push_config_json_0_3(WHOLE)
    inner = {"id": "c1", "url": WHOLE.url, "authentication": {"schemes": ["Bearer"]}}
    assert written == {"taskId": "t1", "pushNotificationConfig": inner}


def test_a_printed_config_has_no_secret() -> None:  # attack HOOK-02
    assert "s3cret" not in repr(WHOLE) and "t0ken" not in repr(WHOLE)
    assert "s3cret" not in repr(WHOLE.authentication)


def test_a_config_travels_with_a_message_in_either_version() -> None:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
    config = {"url": WHOLE.url, "authentication": {"scheme": "Bearer", "credentials": "s3cret"}}
    read = v1.read_send_params({"message": message, "configuration": {"taskPushNotificationConfig": config}})
    assert read.configuration.task_push_notification_config == PushConfig(url=WHOLE.url, authentication=WHOLE.authentication)
    old = {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    config_03 = {"url": WHOLE.url, "authentication": {"schemes": ["Bearer"], "credentials": "s3cret"}}
    lifted = v03.read_send_params({"message": old, "configuration": {"pushNotificationConfig": config_03}})
    assert lifted.configuration.task_push_notification_config == read.configuration.task_push_notification_config


def test_requests_name_the_task_and_the_config() -> None:
    assert read_push_params({"taskId": "t1", "id": "c1"}) == PushParams("t1", "c1")
    assert read_push_params_0_3({"id": "t1", "pushNotificationConfigId": "c1"}) == PushParams("t1", "c1")
    assert read_push_params_0_3({"id": "t1"}) == PushParams("t1")
    assert read_push_list_params({"taskId": "t1", "pageSize": 5}) == PushListParams("t1", 5)


@pytest.mark.parametrize(
    ("reader", "params", "field"),
    [
        (read_push_config, {"taskId": "t1"}, "url"),
        (read_push_config, {"url": "https://hook.example"}, "taskId"),
        (read_push_config, {"taskId": "t1", "url": "https://hook.example", "authentication": {}}, "authentication.scheme"),
        (read_push_config, {"taskId": "t1", "url": 7}, "url"),
        (read_push_config, [], "params"),
        (read_push_config_0_3, {"taskId": "t1"}, "pushNotificationConfig"),
        (
            read_push_config_0_3,
            {"taskId": "t1", "pushNotificationConfig": {"url": "u", "authentication": {"schemes": []}}},
            "authentication.scheme",
        ),
        (read_push_params, {"taskId": "t1"}, "id"),
        (read_push_params, {"taskId": "t" * 257, "id": "c"}, "taskId"),
        (read_push_params_0_3, {}, "id"),
        (read_push_params_0_3, {"id": "t1", "pushNotificationConfigId": 7}, "pushNotificationConfigId"),
        (read_push_list_params, {"taskId": "t1", "pageSize": 101}, "pageSize"),
    ],
)
def test_what_is_wrong_is_named(reader: object, params: object, field: str) -> None:
    assert callable(reader)
    with pytest.raises(BadMessage) as raised:
        reader(params)
    assert raised.value.field == field


def test_absent_authentication_stays_absent() -> None:
    assert read_push_config_0_3({"taskId": "t", "pushNotificationConfig": {"url": "u"}}).authentication is UNSET
