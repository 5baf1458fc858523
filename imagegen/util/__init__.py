"""Small tools without a word of the domain: processes, threads, files, templates of text."""
