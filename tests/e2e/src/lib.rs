//! End-to-end tests of ktstr itself. They are all in `tests/`.
