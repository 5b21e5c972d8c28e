"""The master's supervisor and rollover, whole, in a world whose processes, sockets and clocks are pretended."""
