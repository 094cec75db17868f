"""The same command as a job of a Ray cluster: packed, sent, watched, stopped; or written down for Kubernetes."""
