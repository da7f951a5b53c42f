"""Helpers for tests of devices: one device, or one unit, on a bus that a test drives by hand."""

from engine.testing.bus import FakeBus

__all__ = ["FakeBus"]
