"""Tests of retention: what goes, what stays, and in which portions."""
