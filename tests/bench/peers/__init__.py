"""FastAGI servers that do the same job on other libraries: the measure for ours under load."""
