//! The `ringroad` command.

fn main() {}
