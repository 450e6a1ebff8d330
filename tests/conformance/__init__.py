"""The conformance profile: public kits run against the gateway as it is served, with authentication on."""
