"""The parts of a page, one module each: a function of `RunFacts` that returns HTML, or nothing where it has no data."""
