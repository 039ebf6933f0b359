"""The neighbours of Tamiyo, working for real.

Each sees only public interfaces: Leyline's messages, the error tree, signing, the core's value types and
`tamiyo.service`. `kasmina` manages seeds (the grafted modules), `tolaria` trains and reports, `urza` is the
blueprint library.
"""
