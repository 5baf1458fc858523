"""What is inside an image: its layers, packages, files, and their sizes."""
