"""How a running step is watched: its figures, as Ray metrics, in its own log, and beside its output."""
