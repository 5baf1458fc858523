"""Images for fine-tuning language models on rented GPUs: rendered, built, tested, pushed."""

__version__ = "0.1.0"
