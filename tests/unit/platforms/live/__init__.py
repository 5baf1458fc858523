"""Stand-ins for RunPod's and vast.ai's APIs: real servers on this machine's loopback."""
