"""Folders on disk -> sample table -> split -> cache -> batches. One way, one direction, no framework."""
