"""The HTTP service: jobs for other programs and for browsers."""
