"""What runs inside the container: the worker, and the REPL process that runs cells."""
