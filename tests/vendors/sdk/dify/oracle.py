"""Dify's own client, held against the adapter for its apps: it knows chats, and neither workflows nor forms."""

from dify_client import ChatClient

from tests.vendors.sdk.oracle import Json, Oracle, main


def repeat(url: str, exchange: Json) -> bool:
    client = ChatClient("key")
    client.base_url = url
    if (exchange["method"], exchange["path"]) != ("POST", "/chat-messages"):
        return False
    client.create_chat_message(**exchange["json"]).raise_for_status()
    return True


if __name__ == "__main__":
    main(Oracle(repeat, unlisted=("conversation_id", "files")))
