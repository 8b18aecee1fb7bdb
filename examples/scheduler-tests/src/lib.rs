//! A scheduler developer's tests of a scheduler. They are all in `tests/`; a crate needs nothing else.
