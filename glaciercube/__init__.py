"""Glacier-probability time series from open satellite archives."""
