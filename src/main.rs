//! The `reprovisiond` binary: parses the command line and returns an exit code.

fn main() -> std::process::ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = reprovisiond::failpoint::setup();
    reprovisiond::cli::main()
}
