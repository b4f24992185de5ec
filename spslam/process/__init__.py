"""The process: signals, terminals, locks, failures, run times, the computer."""
