"""The process: signals, terminals, locks, failures, the computer."""
