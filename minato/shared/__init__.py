"""State that all processes share: the board in shared memory."""
