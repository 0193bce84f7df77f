"""A candidate program for each elector, run by the Python of the elector's own environment."""
