"""Experiments that compare detectors, and tricks of their training, a module each: `boxops study NAME`."""
