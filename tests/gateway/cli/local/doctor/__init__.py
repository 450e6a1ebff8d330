"""Tests of `interlock doctor`."""
