"""Experiments that compare detectors, a module each: `boxops study NAME`."""
