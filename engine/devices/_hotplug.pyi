"""Types of _hotplug.pyx, which says what they mean."""
