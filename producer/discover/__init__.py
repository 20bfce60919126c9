"""Finds the scans of a source, and tells what is not one."""
