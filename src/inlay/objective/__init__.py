"""What a training step minimises: path, prediction target, loss weighting and timestep sampling.

``inlay.objective.settings.Objective`` is the run file's section; ``inlay.objective.path.Path`` carries the noise
schedule. Nothing here knows a model: the functions take and return tensors.
"""
