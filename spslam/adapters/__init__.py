"""The front end in the form that other programs expect: a module for each program."""
