"""The contract of an adapter as tests: recorded exchanges are played back to a vendor's class, whole, cut, repeated and damaged."""

from adapters.conformance.suite import VendorSuite

__all__ = ["VendorSuite"]
