"""What a request of 2026-07-28 says of itself, looked at quickly and closely."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from adapters.mcp_client.wire.messages import CAPABILITIES_KEY, MODERN, VERSION_KEY
from gateway.ingress.mcp_server.protocol import modern

NAMES = st.sampled_from(["echo", "größe", " echo", "=?base64?ZWNobw==?=", "echo ", ""])
OTHERWISE = st.fixed_dictionaries(  # than it should be
    {},
    optional={
        "mcp-protocol-version": st.sampled_from(["2025-11-25", ""]),
        "mcp-method": st.sampled_from(["tools/list", "resources/read"]),
        "mcp-name": NAMES,
        "twice": st.sampled_from(["mcp-method", "mcp-name"]),
        "version": st.sampled_from(["2025-11-25", 7, None]),
        "capabilities": st.sampled_from([[], None, 1]),
    },
)


@example({}, "=?base64?ZWNobw==?=", "tools/call")
@example({}, "größe", "tools/call")
@example({"mcp-name": " echo"}, " echo", "tools/call")
@example({"capabilities": []}, "echo", "tools/call")
@given(OTHERWISE, NAMES, st.sampled_from(["tools/call", "tools/list", "resources/read"]))
def test_the_quick_look_lets_nothing_by_that_the_close_one_refuses(other: dict[str, Any], name: str, method: str) -> None:
    sent = {"mcp-protocol-version": "2026-07-28", "mcp-method": method, "mcp-name": name.strip()}
    sent |= {key: value for key, value in other.items() if key in sent}
    listed = [(key.encode(), sent[key].encode()) for key in (*sent, *([other["twice"]] if "twice" in other else []))]
    meta = {VERSION_KEY: other.get("version", MODERN), CAPABILITIES_KEY: other.get("capabilities", {})}
    params = {"name": name, "uri": name, "_meta": meta}
    agreed = modern.is_canonical({"headers": listed}, method, params)
    assert agreed or other or name != "echo"  # there is a quick look
    if agreed:
        modern.check_step_by_step({"headers": listed}, method, params)


def test_the_quick_look_is_enough_for_what_nearly_all_clients_write() -> None:
    listed = [(b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", b"tools/call"), (b"mcp-name", b"echo")]
    params = {"name": "echo", "_meta": {VERSION_KEY: "2026-07-28", CAPABILITIES_KEY: {}}}
    assert modern.is_canonical({"headers": listed}, "tools/call", params)
    for odd in (None, [], {"name": "echo"}, {**params, "name": 7}, {**params, "name": "other"}, {**params, "_meta": 5}):
        assert not modern.is_canonical({"headers": listed}, "tools/call", odd)
