//! The commands as people and scripts meet them: the real program, a child process at a time.

mod bench;
mod check;
mod demo;
mod enqueue;
mod fill;
mod generate;
mod orders;
mod program;
mod results;
mod status;
