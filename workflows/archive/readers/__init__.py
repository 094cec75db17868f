"""Readers of public data sets and of other people's annotations, each format in a file of its own."""
