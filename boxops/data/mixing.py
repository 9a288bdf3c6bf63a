"""Samples made of several: mixup and mosaic."""
