"""What commands do: a project in, values out. A module is a command, or what several share."""
