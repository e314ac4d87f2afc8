//! Integration tests of the load test.
