"""The worker's wing: encodes scans, scores them and writes the report."""
