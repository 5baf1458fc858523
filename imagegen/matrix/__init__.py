"""What a project builds: its matrix, the targets that it resolves to, their aliases."""
