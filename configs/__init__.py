"""Built-in configurations, benchmark suites, published metrics and training recipes."""
