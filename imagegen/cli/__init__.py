"""Options in, one call, one report out: a module for each group of commands, and app for all."""
