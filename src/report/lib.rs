//! HTML pages and plots.
