"""A real Ray cluster of several nodes on one machine, to try and to test what needs more than one node."""
