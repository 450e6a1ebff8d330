"""LangGraph Agent Server."""
