"""What every benchmark here has in common: who takes part, equal answers first, fresh processes in turn, and the page.

A scenario (`benchmarks/scenarios.py`) names its contenders, its sizes and what is asked of ours; the module of its
cases says how the data comes to be, how a contender is called, and whether what it did is right. Everything else is
here: `programs` the contenders' environments, `measure` one process, `contest` the rounds, `results` what is kept,
`page` and `chart` what is shown.
"""
