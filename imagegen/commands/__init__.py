"""What each command does: a project in, values out. A module is a command."""
