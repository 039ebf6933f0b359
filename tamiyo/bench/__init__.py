"""How fast it is on this machine: what `tamiyo bench` measures, and what the benchmarks of the repository measure too.

    samples   the small and the large host, packets of a run, a library that has them
    chance    random graphs and networks, from a seed
    timing    calls in turns, and quantiles of what they took
    machine   facts that figures depend on, and when they are doubtful
    builder   graphs of known and new blueprints
    network   the engine beside PyTorch Geometric on the same weights
    agreement how far they agree, over many graphs
    step      the whole of `evaluate_step`, with a real sync, beside a bare one of the same size
    run       all of it, one after the other
    table     as text
    profile   a trace of some steps, to look at

Rule 1: what is compared takes turns in one run, so that whatever else the machine does meets all alike.
Rule 2: wall time is what a caller waits; CPU time beside it is what is left of it on a busy machine.
Rule 3: everything that is measured is the code that runs, through the interfaces that a service uses.
"""
