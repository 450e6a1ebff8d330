"""Agents behind any JSON API, described by the operator in a template."""
