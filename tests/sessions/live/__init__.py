"""Tests of the sessions that something long-lived belongs to."""
