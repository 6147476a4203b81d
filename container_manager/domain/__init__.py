"""Rules about jobs and hosts. Pure: the standard library alone, no I/O, no clock of its own."""
