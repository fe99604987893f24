"""Speed: the asv suite in `benchmarks`, and `python -m asv_benchmarks.versus` against the peers.

The suite follows this project from commit to commit: `cd asv_benchmarks && asv run`. `versus` sets
it beside numpy, scipy and FAISS in one run on one machine, `complexity` fits exponents of n to
counters of work, and `planning` sets the planner's choices beside the best. `HALFSPACE_BENCH_SCALE`
shrinks them all.
"""
