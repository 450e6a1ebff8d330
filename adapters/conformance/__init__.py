"""Conformance tests for adapters: recorded exchanges are played back to a vendor's class, whole, truncated, repeated and damaged."""

from adapters.conformance.suite import VendorSuite

__all__ = ["VendorSuite"]
