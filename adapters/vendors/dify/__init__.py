"""Dify: applications that chat, and workflows."""
