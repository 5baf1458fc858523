"""The values that travel from one step to the next.

Target -> Image -> Built -> Report -> Tested -> Pushed
"""
