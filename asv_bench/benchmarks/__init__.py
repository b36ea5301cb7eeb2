"""asv benchmarks; see CONTRIBUTING.md for how to compare two commits."""
