//! A scheduler developer's first tests with ktstr. They are all in `tests/`; a crate needs nothing else.
