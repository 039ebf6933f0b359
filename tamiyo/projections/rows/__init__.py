"""One projector for each kind of event that leaves rows, by family; `tamiyo.projections.projectors` has them all."""
