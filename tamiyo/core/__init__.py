"""The decision core: pure functions over recorded facts.

Rule 1: everything that can change controller state is an event, and `evolve` is its only writer.
Rule 2: nothing here knows the clock, the disk, randomness, torch or SQLAlchemy; time, ids and outcomes
        arrive inside inputs and are journaled.
Rule 3: arithmetic is + - x / sqrt and comparison, in a fixed order, so that it replays anywhere.
        Logarithms and softmax happen before, and their results are recorded.
Rule 4: behaviour is tables with an interpreter: risk rows, breaker transitions, lifecycle operations.

Reading order: `observation` (what a packet says), `signals` (what the rows read), `risk` (the table),
`breakers`, `decide`, `events`, `state`, `evolve`.
"""
