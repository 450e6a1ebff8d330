"""Pages for people: server-rendered, made from the very answers of /api, for browsers that have a session."""
