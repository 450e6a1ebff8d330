"""Memory: facts that outlive a conversation, each with its source, found by words under the rights of the asker."""
