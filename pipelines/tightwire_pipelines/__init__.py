"""What people start: the command line and the jobs behind it."""
