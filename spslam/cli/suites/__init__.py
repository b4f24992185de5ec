"""Options and steps that the commands for suites of runs share."""
