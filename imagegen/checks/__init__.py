"""Built -> Tested: an image is tried inside, and from outside as a pod's user."""
