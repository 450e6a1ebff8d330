"""What `interlock check` and the start verify of settings, sign-in and documents of workflows, without a running gateway."""
