"""Studies: which method, position or weighting is better, with statistics that hold."""
